"""The interfaces of judges, and the clustering that turns pairwise verdicts into groups of equal meaning."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from semanticspec.text.chat import THINK_END


class Judge(Protocol):
    """Decides which segments mean the same.

    Attributes:
        name: used in file names and in the cards of probes trained on its labels.
        identity: whatever else its verdicts depend on (a model and its revision); empty if there is nothing.
    """

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str: ...

    def keys(self, problem: str, context: str, segments: Sequence[str]) -> Sequence[Hashable]:
        """Returns one key per segment; segments with equal keys mean the same.

        Args:
            problem: the prompt.
            context: the output so far.
            segments: texts of candidates for the next segment.
        """
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """Do two candidates for the next segment, given the same prompt and output so far, mean the same?"""

    problem: str
    context: str
    first: str
    second: str


class PairJudge(Protocol):
    """Compares segments in pairs; its verdicts need not be transitive. `name` and `identity` as in `Judge`."""

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> str: ...

    def same(self, questions: Sequence[Question]) -> list[bool]:
        """Answers each question; a model can answer them in batches."""
        ...


class Clustering:
    """Makes a `Judge` of a `PairJudge` by greedy clustering.

    A segment that ends the thinking never means the same as one that does not, whatever the pair judge would say,
    because different text follows. (Segments in the paper do not contain the tag.)
    """

    def __init__(self, pairs: PairJudge) -> None:
        self.pairs = pairs
        self.name = pairs.name
        self.identity = pairs.identity

    def keys(self, problem: str, context: str, segments: Sequence[str]) -> list[Hashable]:
        """Returns the cluster number of each segment."""

        def same_as(founder: str, others: Sequence[str]) -> list[bool]:
            asked = [other for other in others if ends_thinking(other) == ends_thinking(founder)]
            answers = self.pairs.same([Question(problem, context, founder, other) for other in asked])
            verdicts = dict(zip(asked, answers, strict=True))
            return [verdicts.get(other, False) for other in others]

        return list(cluster(segments, same_as))


def cluster(items: Sequence[str], same_as: Callable[[str, Sequence[str]], Sequence[bool]]) -> list[int]:
    """Assigns each text to the first cluster whose founder means the same; otherwise it founds a new cluster.

    Each round compares one founder with all unassigned texts in one call. These are the comparisons that the
    item-by-item algorithm makes, in as many rounds as there are clusters. Equal texts are compared once.
    Deviation from the authors' scripts: an assignment is never overwritten.

    Args:
        items: texts.
        same_as: takes a founder and other texts, and tells for each of them whether it means the same.

    Returns:
        A cluster number for each text, counting from 0.
    """
    numbers: dict[str, int] = {}
    unassigned = list(dict.fromkeys(items))
    number = 0
    while unassigned:
        founder, *others = unassigned
        numbers[founder] = number
        verdicts = same_as(founder, others) if others else []
        numbers.update({other: number for other, same in zip(others, verdicts, strict=True) if same})
        unassigned = [other for other in others if other not in numbers]
        number += 1
    return [numbers[item] for item in items]


def ends_thinking(text: str) -> bool:
    """Returns whether a segment ends the thinking."""
    return THINK_END in text


def without_think_end(text: str) -> str:
    """Returns a segment as a model is shown it: without the tag and surrounding white space."""
    return text.replace(THINK_END, " ").strip()
