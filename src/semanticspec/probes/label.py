"""Second stage: which segments of a context mean the same, and the labels that follow from it.

A judge sorts a context's segments into meanings; that is stored. Labels are counted from the meanings when a
probe is trained, so one judgement serves both probes and both ways of counting.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from semanticspec.errors import ConfigError, ProbeError
from semanticspec.files import write_atomically
from semanticspec.probes.card import Counting
from semanticspec.probes.storage import Collection, SegmentRecord, Shard
from semanticspec.records import Author


class Judge(Protocol):
    """Says which segments mean the same.

    Attributes:
        name: for the card of the probes trained on its word.
    """

    @property
    def name(self) -> str: ...

    def keys(self, problem: str, context: str, segments: Sequence[str]) -> Sequence[Hashable]:
        """One key for each segment; segments with equal keys mean the same.

        Args:
            problem: the prompt. context: the output so far. segments: texts of segments that may come next.
        """
        ...


class ExactJudge:
    """Reads steps of the bundled demo's grammar. Exact; what it cannot read equals only its own text."""

    name = "exact"

    def keys(self, problem: str, context: str, segments: Sequence[str]) -> list[Hashable]:  # noqa: ARG002
        from semanticspec.demo.grammar import read_step

        return [(read_step(text) or text.strip(), "</think>" in text) for text in segments]


class NumbersJudge:
    """Segments mean the same when they state the same numbers in any order, or have none and the same words.

    A cheap stand-in for mathematical text: it takes `3 + 4 = 7` and `4 and 3 make 7` for the same, and is
    blind to everything but numbers.
    """

    name = "numbers"
    _number = re.compile(r"\d+(?:[.,]\d+)*")

    def keys(self, problem: str, context: str, segments: Sequence[str]) -> list[Hashable]:  # noqa: ARG002
        return [
            frozenset(number.replace(",", "") for number in self._number.findall(text))
            or " ".join(text.lower().split())
            for text in segments
        ]


class PairwiseJudge:
    """Makes a judge of a comparison of two texts, such as entailment both ways or a language model's word."""

    def __init__(self, name: str, same: Callable[[str, str, str, str], bool]) -> None:
        """Wraps `same(problem, context, first, second)`."""
        self.name = name
        self._same = same

    def keys(self, problem: str, context: str, segments: Sequence[str]) -> list[Hashable]:
        return list(cluster(segments, lambda first, second: self._same(problem, context, first, second)))


JUDGES: dict[str, Callable[[], Judge]] = {"exact": ExactJudge, "numbers": NumbersJudge}


def judge_named(name: str) -> Judge:
    """The judge of a name.

    Raises:
        ConfigError: there is none.
    """
    if name not in JUDGES:
        raise ConfigError(f"unknown judge {name!r}; expected one of {', '.join(JUDGES)}")
    return JUDGES[name]()


def cluster(items: Sequence[str], same: Callable[[str, str], bool]) -> list[int]:
    """Numbers of clusters: each item joins the first cluster whose first member is the same, or opens one.

    Deviation from the authors' scripts: an assignment, once made, is never overwritten.
    """
    founders: list[str] = []
    numbers: list[int] = []
    for item in items:
        number = next(
            (i for i, founder in enumerate(founders) if founder == item or same(founder, item)), None
        )
        if number is None:
            number = len(founders)
            founders.append(item)
        numbers.append(number)
    return numbers


def meanings_of(shard: Shard, judge: Judge) -> list[int]:
    """The meaning of every segment of a shard, as a number that counts within its context."""
    numbers = [0] * len(shard.segments)
    for context in shard.contexts:
        indices = [i for i, segment in enumerate(shard.segments) if segment.context_id == context.context_id]
        keys = judge.keys(shard.prompt, context.text, [shard.segments[i].text for i in indices])
        known: dict[Hashable, int] = {}
        for i, key in zip(indices, keys, strict=True):
            numbers[i] = known.setdefault(key, len(known))
    return numbers


def label(
    collection: Collection, judge: Judge, on_progress: Callable[[Shard], None] = lambda _: None
) -> dict[str, list[int]]:
    """Judges all finished problems and stores the meanings; those judged before are not judged again.

    What is judged is stored even when this is interrupted.

    Returns:
        For every problem the meanings of its segments, see `meanings_of`.
    """
    path = _meanings_path(collection, judge.name)
    known = read_meanings(collection, judge.name) if path.exists() else {}
    fresh = dict(known)
    try:
        for shard in collection:
            if len(known.get(shard.problem_id, ())) != len(shard.segments) or shard.problem_id not in known:
                fresh[shard.problem_id] = meanings_of(shard, judge)
            on_progress(shard)
    finally:
        lines = (json.dumps({"problem_id": name, "meanings": found}) + "\n" for name, found in fresh.items())
        write_atomically(path, "".join(lines).encode())
    return fresh


def read_meanings(collection: Collection, judge_name: str) -> dict[str, list[int]]:
    """The meanings that `label` stored.

    Raises:
        ProbeError: the collection has not been judged by this judge, or the file is broken.
    """
    path = _meanings_path(collection, judge_name)
    try:
        records = [json.loads(line) for line in path.read_text().splitlines()]
        return {record["problem_id"]: list(record["meanings"]) for record in records}
    except OSError as error:
        raise ProbeError(
            f"{collection.folder} has no labels by the judge {judge_name!r}; run: semanticspec probe label "
            f"--data {collection.folder} --judge {judge_name}"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ProbeError(f"{path} is broken ({error}); delete it and label again") from error


def count_labels(
    segments: Sequence[SegmentRecord], meanings: Sequence[int], role: Author, counting: Counting
) -> list[float | None]:
    """Semantic probabilities of segments, as shares of the samples of one model.

    With n samples of the model in the segment's context, k of them with the segment's meaning: `unbiased`
    gives the model's own segments (k - 1) / (n - 1), segments of the other model k / n. `paper` gives own
    segments k / n and leaves the other model's out. Given that a meaning was drawn, (k - 1) / (n - 1) is
    unbiased for its probability, while k / n counts the sample itself. Source: `paper`: share of a cluster.

    Returns:
        A label for each segment, None where there is none: what this model's probe is not asked about (the
        target's segments for the draft), or too few samples.
    """
    totals: dict[str, int] = {}
    shares: dict[tuple[str, int], int] = {}
    for segment, meaning in zip(segments, meanings, strict=True):
        if segment.author == role:
            totals[segment.context_id] = totals.get(segment.context_id, 0) + segment.count
            place = (segment.context_id, meaning)
            shares[place] = shares.get(place, 0) + segment.count

    def one(segment: SegmentRecord, meaning: int) -> float | None:
        n, k = totals.get(segment.context_id, 0), shares.get((segment.context_id, meaning), 0)
        own = segment.author == role
        if n < 2 or (not own and (role == "draft" or counting == "paper")):
            return None
        return (k - 1) / (n - 1) if own and counting == "unbiased" else k / n

    return [one(segment, meaning) for segment, meaning in zip(segments, meanings, strict=True)]


def paired_shares(samples: Iterable[int], meaning: int, random_order: Sequence[int]) -> tuple[float, float]:
    """The share of a meaning in each half of a model's samples: how well labels predict themselves.

    Args:
        samples: meaning of every sample. random_order: a permutation of their indices.
    """
    listed = list(samples)
    ordered = [listed[i] == meaning for i in random_order]
    half = len(ordered) // 2
    return sum(ordered[:half]) / half, sum(ordered[half : 2 * half]) / half


def _meanings_path(collection: Collection, judge_name: str) -> Path:
    return collection.folder / f"meanings-{judge_name}.jsonl"
