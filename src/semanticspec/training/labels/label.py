"""Second stage: which segments of a context mean the same, and the labels that follow from it.

A judge (`judges`) sorts a context's segments into meanings; that is stored (`meanings`). Labels are counted from
the meanings when a probe is trained, so one judgement serves both probes and both ways of counting.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence

from semanticspec.errors import ProbeError
from semanticspec.probes.card import Counting
from semanticspec.records import Author
from semanticspec.training.data.storage import Collection, SegmentRecord, Shard
from semanticspec.training.labels.judges import Judge
from semanticspec.training.labels.meanings import MeaningsStore


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

    A problem is stored as soon as it is judged, so a kill loses one problem at most; judges that are models
    keep their verdicts as well, and are not asked again even about that one.

    Returns:
        For every problem the meanings of its segments, see `meanings_of`.

    Raises:
        ProbeError: there is no collection, or what is stored was judged by another model; see `MeaningsStore`.
    """
    store = MeaningsStore(collection, judge.name, judge.identity)
    for shard in collection:
        if not store.has(shard):
            store.add(shard, meanings_of(shard, judge))
        on_progress(shard)
    store.finish()
    return {name: list(judged.meanings) for name, judged in store.judged.items()}


def read_meanings(collection: Collection, judge_name: str) -> dict[str, list[int]]:
    """The meanings that `label` stored, also while it is not finished.

    Raises:
        ProbeError: the collection has not been judged by this judge, or a file is broken or of another collection.
    """
    judged = MeaningsStore(collection, judge_name).judged
    if not judged:
        raise ProbeError(
            f"{collection.folder} has no labels by the judge {judge_name!r}; run: semanticspec probe label "
            f"--data {collection.folder} --judge {judge_name}"
        )
    return {name: list(found.meanings) for name, found in judged.items()}


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
