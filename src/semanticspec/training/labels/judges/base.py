"""What a judge is, and how the word of a judge that compares two texts becomes a partition into meanings."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

THINK_END = "</think>"


class Judge(Protocol):
    """Says which segments mean the same.

    Attributes:
        name: for files and for the card of the probes trained on its word.
        identity: what else decides its answers (a model and its revision); empty for judges that are code alone.
    """

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str: ...

    def keys(self, problem: str, context: str, segments: Sequence[str]) -> Sequence[Hashable]:
        """One key for each segment; segments with equal keys mean the same.

        Args:
            problem: the prompt. context: the output so far. segments: texts of segments that may come next.
        """
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """Whether two segments that may come next, after the same prompt and output, mean the same."""

    problem: str
    context: str
    first: str
    second: str


class PairJudge(Protocol):
    """Compares two segments at a time; its word need not be transitive. Attributes as of `Judge`."""

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str: ...

    def same(self, questions: Sequence[Question]) -> list[bool]:
        """An answer for each question. Many are asked at once, so that a model can answer them in a batch."""
        ...


class Clustering:
    """A judge made of a pair judge, by greedy clustering.

    A segment that ends the thinking is never the same as one that does not, whatever a pair judge reads into
    the tag: what follows them differs. (The paper never judges segments with the tag.)
    """

    def __init__(self, pairs: PairJudge) -> None:
        self.pairs = pairs
        self.name = pairs.name
        self.identity = pairs.identity

    def keys(self, problem: str, context: str, segments: Sequence[str]) -> list[Hashable]:
        def same_as(founder: str, others: Sequence[str]) -> list[bool]:
            asked = [other for other in others if ends_thinking(other) == ends_thinking(founder)]
            said = self.pairs.same([Question(problem, context, founder, other) for other in asked])
            verdicts = dict(zip(asked, said, strict=True))
            return [verdicts.get(other, False) for other in others]

        return list(cluster(segments, same_as))


def cluster(items: Sequence[str], same_as: Callable[[str, Sequence[str]], Sequence[bool]]) -> list[int]:
    """Numbers of clusters: each item joins the first cluster whose founder is the same, or founds one.

    All that wait are compared with a founder at once, which asks exactly what going item by item would ask, in
    as many rounds as there are clusters. Equal texts are one and are asked about once. Deviation from the
    authors' scripts: an assignment, once made, is never overwritten.

    Args:
        items: texts.
        same_as: for a founder and others, whether each of them is the same as the founder.
    """
    numbers: dict[str, int] = {}
    waiting = list(dict.fromkeys(items))
    number = 0
    while waiting:
        founder, *others = waiting
        numbers[founder] = number
        verdicts = same_as(founder, others) if others else []
        numbers.update(
            {other: number for other, verdict in zip(others, verdicts, strict=True) if verdict},
        )
        waiting = [other for other in others if other not in numbers]
        number += 1
    return [numbers[item] for item in items]


def ends_thinking(text: str) -> bool:
    """Whether the segment closes the reasoning."""
    return THINK_END in text
