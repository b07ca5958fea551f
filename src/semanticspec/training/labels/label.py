"""Second stage: labels a collection.

A judge (see `judges`) groups the segments of each context by meaning, and the groups are stored (see `meanings`).
Labels are counted from them when a probe is trained, so one run of the judge serves the probes of both roles and
both ways of counting. Outcome labels are not a judge's, see `outcomes`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from semanticspec.errors import ProbeError
from semanticspec.probes.card import Counting
from semanticspec.records import Author
from semanticspec.training.data.storage import Collection, SegmentRecord, Shard
from semanticspec.training.labels.judges import Judge
from semanticspec.training.labels.meanings import MeaningsStore
from semanticspec.training.labels.outcomes import OUTCOME, ProblemOutcomes, read_outcomes

ProblemLabels = Sequence[int] | ProblemOutcomes
"""What the labels of a problem's segments are counted from: meanings, or what the target reaches from after them."""


def meanings_of(shard: Shard, judge: Judge) -> list[int]:
    """Returns the meaning of each segment of a shard: a number, equal for equal meanings within a context."""
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
    """Judges all finished problems that have not been judged yet, and stores the meanings.

    Each problem is stored as soon as it is judged, so a killed process loses at most one problem. Judges that are
    models also cache their verdicts, so even that problem is not judged twice.

    Returns:
        For each problem the meanings of its segments, see `meanings_of`.

    Raises:
        ProbeError: there is no collection, or it was judged by another model before; see `MeaningsStore`.
    """
    store = MeaningsStore(collection, judge.name, judge.identity)
    for shard in collection:
        if not store.has(shard):
            store.add(shard, meanings_of(shard, judge))
        on_progress(shard)
    store.finish()
    return {name: list(judged.meanings) for name, judged in store.judged.items()}


def read_meanings(collection: Collection, judge_name: str) -> dict[str, list[int]]:
    """Returns the meanings that `label` has stored so far.

    Raises:
        ProbeError: this judge has not judged the collection, or a file is broken or belongs to another collection.
    """
    judged = MeaningsStore(collection, judge_name).judged
    if not judged:
        raise ProbeError(
            f"{collection.folder} has no labels by the judge {judge_name!r}; make them with: semanticspec probe label "
            f"--data {collection.folder} --judge {judge_name}"
        )
    return {name: list(found.meanings) for name, found in judged.items()}


def read_labels(collection: Collection, judge_name: str) -> Mapping[str, ProblemLabels]:
    """Returns a judge's meanings by problem, or the outcomes if the name is `outcome`.

    Raises:
        ProbeError: see `read_meanings` and `read_outcomes`.
    """
    return read_outcomes(collection) if judge_name == OUTCOME else read_meanings(collection, judge_name)


def count_labels(
    segments: Sequence[SegmentRecord], meanings: ProblemLabels, role: Author, counting: Counting
) -> list[float | None]:
    """Estimates the semantic probability of each segment under one model, from the meanings of its samples.

    Outcomes give the share of right continuations instead, whatever the counting.

    Of n samples of the model in the segment's context, k have the segment's meaning. `unbiased` labels the model's
    own segments with (k - 1) / (n - 1) and those of the other model with k / n. `paper` labels own segments with
    k / n and the other model's not at all. Given that a segment is one of the samples, (k - 1) / (n - 1) is an
    unbiased estimate of its meaning's probability; k / n is not, because it counts the segment itself.
    Source: `paper` is the paper's share of a cluster.

    Returns:
        A label for each segment; None if there are fewer than 2 samples, or if the model's probe never sees such a
        segment (the draft's probe sees no segments by the target).

    Raises:
        ProbeError: outcomes were given for the draft.
    """
    if isinstance(meanings, ProblemOutcomes):
        return meanings.labels(role)
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
    """Returns the share of a meaning in each half of a model's samples; the two differ by sampling noise only.

    Args:
        samples: the meaning of each sample.
        meaning: the meaning to count.
        random_order: a permutation of the indices of the samples, cut in the middle.
    """
    listed = list(samples)
    ordered = [listed[i] == meaning for i in random_order]
    half = len(ordered) // 2
    return sum(ordered[:half]) / half, sum(ordered[half : 2 * half]) / half
