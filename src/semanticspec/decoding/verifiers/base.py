"""What decides on a draft: a `Verifier`. Most are a `Rule` over one scoring pass of the target."""

from __future__ import annotations

from typing import Protocol

from semanticspec.decoding.draft import Draft
from semanticspec.decoding.transcript import Transcript
from semanticspec.records import Score, Verdict


class Verifier(Protocol):
    """Decides what is kept of a draft and who writes next.

    Attributes:
        lossy: whether its verdicts can change the distribution of the target's output.
        needs_distributions: drafts must hold full distributions.
    """

    @property
    def lossy(self) -> bool: ...

    @property
    def needs_distributions(self) -> bool: ...

    async def verify(self, transcript: Transcript, draft: Draft) -> Verdict:
        """Decides on a draft that would follow the transcript. Changes neither."""
        ...


class Rule(Protocol):
    """Decides on a draft from the target's score of it. `make_verifier(request, rule)` makes a verifier of it.

    Attributes:
        lossy: whether its verdicts can change the distribution of the target's output.
        needs_distributions: the score and the draft must hold full distributions.
        needs_signals: the score must hold ranks, entropies and margins; assumed of rules without this attribute.
        needs_text: the draft must hold its text; not assumed of rules without this attribute.
    """

    lossy: bool
    needs_distributions: bool

    def decide(self, draft: Draft, score: Score) -> Verdict:
        """Returns the verdict; calls no model."""
        ...
