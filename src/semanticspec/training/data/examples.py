"""Gathers the rows that a probe is trained and evaluated on from a collection and its labels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from itertools import chain
from random import Random
from typing import Any, Literal

import torch
from torch import Tensor

from semanticspec.errors import ProbeError
from semanticspec.probes.card import Counting, ProbePooling
from semanticspec.probes.features import TokenSignals
from semanticspec.probes.states import States, concatenated, hidden_size_of, pooled_states
from semanticspec.records import Author, SegmentText
from semanticspec.training.data.storage import SegmentRecord, Shard
from semanticspec.training.labels.label import ProblemLabels, count_labels, paired_shares
from semanticspec.training.labels.outcomes import ProblemOutcomes

Split = Literal["train", "validation", "test"]
SHARES: dict[Split, float] = {"train": 0.6, "validation": 0.2, "test": 0.2}


@dataclass(frozen=True)
class Examples:
    """One row per segment: the inputs of a probe and its label. Tensors are on the CPU, float32 unless noted.

    Attributes:
        states: hidden states of the probe's model: `[rows, hidden]`, or a `Ragged` of one state per token.
        signals: per row, what that model's pass says about each token.
        draft_logprobs: per row, log-probabilities of the draft in nats; empty for segments by the target.
        labels: `[rows]`, semantic probabilities.
        weights: `[rows]`, how often the segment was sampled.
        drafted: `[rows]`, bool, whether the draft wrote the segment.
        from_loop: `[rows]`, bool, whether the speculative loop wrote the context.
        halves: `[rows, 2]`, the label counted from each half of the model's samples.
        problem_ids: per row.
        draft_states: pooled states of the draft, `[rows, hidden]`, zeros for segments by the target; None unless they
            were asked for.
    """

    states: States
    signals: tuple[TokenSignals, ...]
    draft_logprobs: tuple[tuple[float, ...], ...]
    labels: Tensor
    weights: Tensor
    drafted: Tensor
    from_loop: Tensor
    halves: Tensor
    problem_ids: tuple[str, ...]
    draft_states: Tensor | None = None

    def __len__(self) -> int:
        return len(self.problem_ids)

    def select(self, mask: Tensor) -> Examples:
        """Returns the rows where `mask` (bool, `[rows]`) is true."""
        indices = mask.nonzero().flatten().tolist()

        def chosen(values: Any) -> Any:
            if values is None:
                return None
            return tuple(values[i] for i in indices) if isinstance(values, tuple) else values[mask]

        return Examples(**{field.name: chosen(getattr(self, field.name)) for field in fields(self)})

    def of_split(self, split: Split) -> Examples:
        """Returns the rows of the problems of a split."""
        return self.select(
            torch.tensor([split_of(name) == split for name in self.problem_ids], dtype=torch.bool)
        )


def split_of(problem_id: str) -> Split:
    """Returns the split of a problem (60 / 20 / 20 %), which depends on its id only."""
    digest = hashlib.blake2b(f"probe split:{problem_id}".encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    if place < SHARES["train"]:
        return "train"
    return "validation" if place < SHARES["train"] + SHARES["validation"] else "test"


def gather(
    shards: Iterable[Shard],
    meanings: Mapping[str, ProblemLabels],
    role: Author,
    counting: Counting,
    draft_pooling: ProbePooling | None = None,
) -> Examples:
    """Gathers the rows of one role's probe: the segments that have a label.

    With the counting `paper` the target's probe has no rows by the draft; evaluate it on rows gathered with
    `unbiased`.

    Args:
        draft_pooling: also gather the draft's states, for a joint probe: pooled like this (mean or last) if every state
            was collected, else as collected.

    Raises:
        ProbeError: a problem has not been judged, or there are no rows.
    """
    parts: list[Examples] = []
    for shard in shards:
        found = meanings.get(shard.problem_id)
        if found is None or len(found) != len(shard.segments):
            raise ProbeError(
                f"problem {shard.problem_id!r} has no labels; make them with: semanticspec probe label"
            )
        part = _of_shard(shard, found, role, counting, draft_pooling)
        if len(part):
            parts.append(part)
    if not parts:
        raise ProbeError("the collection has no segments with labels; collect on more problems")
    columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(Examples)}
    return Examples(**{name: _concatenated(values) for name, values in columns.items()})


def _concatenated(parts: list[Any]) -> Any:
    if parts[0] is None:
        return None
    return tuple(chain(*parts)) if isinstance(parts[0], tuple) else concatenated(parts)


def _of_shard(
    shard: Shard,
    meanings: ProblemLabels,
    role: Author,
    counting: Counting,
    draft_pooling: ProbePooling | None,
) -> Examples:
    labels = count_labels(shard.segments, meanings, role, counting)
    rows = [(i, label) for i, label in enumerate(labels) if label is not None]
    indices = [i for i, _ in rows]
    segments = [shard.segments[i] for i in indices]
    origins = {context.context_id: context.origin for context in shard.contexts}
    halves = _halves(shard, meanings, role)
    states = shard.target_states if role == "target" else shard.draft_states
    texts = segment_texts(shard)
    drafted = torch.tensor([segment.author == "draft" for segment in segments], dtype=torch.bool)
    return Examples(
        states=states[indices],
        signals=tuple(segment_signals(shard.segments[i], role, texts[i]) for i in indices),
        draft_logprobs=tuple(segment.draft_logprobs for segment in segments),
        labels=torch.tensor([label for _, label in rows], dtype=torch.float32),
        weights=torch.tensor([float(segment.count) for segment in segments]),
        drafted=drafted,
        from_loop=torch.tensor(
            [origins[segment.context_id] == "loop" for segment in segments], dtype=torch.bool
        ),
        halves=torch.tensor([halves[i] for i in indices], dtype=torch.float32).reshape(-1, 2),
        problem_ids=(shard.problem_id,) * len(rows),
        draft_states=None if draft_pooling is None else _draft_states(shard, indices, drafted, draft_pooling),
    )


def _draft_states(shard: Shard, indices: list[int], drafted: Tensor, pooling: ProbePooling) -> Tensor:
    """Pooled states of the draft, `[indices, hidden]`; zeros where `drafted` is false."""
    found = shard.draft_states[indices]
    states = torch.zeros(len(indices), hidden_size_of(found))
    if bool(drafted.any()):
        states[drafted] = pooled_states(found[drafted], pooling).float()
    return states


def segment_texts(shard: Shard) -> list[SegmentText]:
    """Returns the text of every segment of a shard, with what comes before it."""
    before = {context.context_id: context.text for context in shard.contexts}
    return [SegmentText(shard.prompt, before[segment.context_id], segment.text) for segment in shard.segments]


def segment_signals(segment: SegmentRecord, role: Author, text: SegmentText) -> TokenSignals:
    """Returns the signals of one model's pass over a segment, as `signals_of` returns them in use."""
    if role == "draft":
        return TokenSignals(segment.draft_logprobs, draft_logprobs=segment.draft_logprobs, text=text)
    return TokenSignals(
        segment.target_logprobs,
        segment.target_ranks,
        segment.target_entropies,
        segment.target_margins,
        segment.draft_logprobs,
        text,
    )


def _halves(shard: Shard, meanings: ProblemLabels, role: Author) -> list[tuple[float, float]]:
    """Returns each segment's label counted from each half of the model's samples; the ids seed the random split."""
    if isinstance(meanings, ProblemOutcomes):
        return meanings.halves()
    samples: dict[str, list[int]] = {}
    for segment, meaning in zip(shard.segments, meanings, strict=True):
        if segment.author == role:
            samples.setdefault(segment.context_id, []).extend([meaning] * segment.count)
    orders = {}
    for context_id, drawn in samples.items():
        orders[context_id] = list(range(len(drawn)))
        Random(f"{shard.problem_id}:{context_id}").shuffle(orders[context_id])
    return [
        paired_shares(samples[segment.context_id], meaning, orders[segment.context_id])
        if len(samples.get(segment.context_id, ())) >= 2
        else (0.0, 0.0)
        for segment, meaning in zip(shard.segments, meanings, strict=True)
    ]
