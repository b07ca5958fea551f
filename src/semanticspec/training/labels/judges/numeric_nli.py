"""The judge `numeric+nli`: the same figures, and entailment both ways."""

from __future__ import annotations

from collections.abc import Sequence

from semanticspec.training.labels.judges.base import PairJudge, Question
from semanticspec.training.labels.judges.numeric import figures_of


class NumericAndEntailmentJudge:
    """Asks the entailment judge only about pairs with equal figures (see `numeric`), or without any.

    NLI models are weak on numbers, and `numeric` ignores who does what; each covers the other's weakness.
    """

    def __init__(self, entailment: PairJudge) -> None:
        self._entailment = entailment
        self.name = f"numeric+{entailment.name}"
        self.identity = entailment.identity

    def same(self, questions: Sequence[Question]) -> list[bool]:
        """Answers each question."""
        equal = [figures_of(question.first) == figures_of(question.second) for question in questions]
        answers = iter(self._entailment.same([q for q, yes in zip(questions, equal, strict=True) if yes]))
        return [yes and next(answers) for yes in equal]
