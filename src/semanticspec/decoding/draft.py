"""Drafted tokens that wait for a verdict."""

from __future__ import annotations

from dataclasses import dataclass

from semanticspec.records import Generation, SegmentText


@dataclass(frozen=True, slots=True)
class Draft:
    """A drafted segment, or a proposal of a few tokens.

    Attributes:
        generation: in the draft's own tokens.
        token_ids: in the target's tokens, up to the first token that the target does not have; can be empty. Such
            drafts must be verified all the same: to drop them for what they contain would bias the output.
        segment_text: its text and what comes before it; None unless the rule needs it (`Rule.needs_text`).
    """

    generation: Generation
    token_ids: tuple[int, ...]
    segment_text: SegmentText | None = None
