"""Drafted tokens that wait for a verdict."""

from __future__ import annotations

from dataclasses import dataclass

from semanticspec.records import Generation


@dataclass(frozen=True, slots=True)
class Draft:
    """A drafted segment, or a proposal of a few tokens.

    Attributes:
        generation: in the draft's own tokens.
        token_ids: in the target's tokens; fewer where the draft wrote a token that the target does not have.
    """

    generation: Generation
    token_ids: tuple[int, ...]
