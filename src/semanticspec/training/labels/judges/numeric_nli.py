"""Numbers and wording together: the same figures, and entailment both ways."""

from __future__ import annotations

from collections.abc import Sequence

from semanticspec.training.labels.judges.base import PairJudge, Question
from semanticspec.training.labels.judges.numeric import figures_of


class NumericAndEntailmentJudge:
    """Asks the entailment judge only about pairs with the same figures (see `numeric`), or with none at all.

    NLI models are weak on numbers, `numeric` is blind to who does what: each one mends the other's weakness.
    """

    def __init__(self, entailment: PairJudge) -> None:
        self._entailment = entailment
        self.name = f"numeric+{entailment.name}"
        self.identity = entailment.identity

    def same(self, questions: Sequence[Question]) -> list[bool]:
        """An answer for each question."""
        agreed = [figures_of(question.first) == figures_of(question.second) for question in questions]
        said = iter(self._entailment.same([q for q, equal in zip(questions, agreed, strict=True) if equal]))
        return [equal and next(said) for equal in agreed]
