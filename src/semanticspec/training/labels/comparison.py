"""Compares outcome labels with a judge's on the same segments: which one tells what a segment costs?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from semanticspec.errors import ProbeError
from semanticspec.output.console import TableSection
from semanticspec.training.data.storage import Collection
from semanticspec.training.labels.label import count_labels, read_meanings
from semanticspec.training.labels.outcomes import read_outcomes
from semanticspec.training.metrics import POSITIVE, Interval, ProblemBootstrap, share, spearman

_MAX_TEXT = 60


@dataclass(frozen=True)
class ComparedSegment:
    """A draft-written segment with both labels.

    Attributes:
        count: how often the draft wrote it.
        meaning: share of the target's samples that mean the same.
        right: whether each of the target's continuations from after it is right.
        baseline: share of right continuations of its context without it; None if it was not measured.
    """

    problem_id: str
    text: str
    count: int
    meaning: float
    right: tuple[bool, ...]
    baseline: float | None

    @property
    def outcome(self) -> float:
        """Share of right continuations."""
        return sum(self.right) / len(self.right)


@dataclass(frozen=True)
class Comparison:
    """Both labels of the same segments, weighted by how often each was drawn.

    Attributes:
        correlation: Spearman correlation of the labels.
        predicted_by: Spearman correlation of a label with the gain: share right with the segment minus share right
            without it. Each gain is measured on the second half of the continuations, and `outcome` is the first half,
            so that both labels predict continuations that they have not seen. Empty without baselines.
        groups: by meaning label: share of segments, mean outcome, mean gain (None without baselines).
    """

    judge: str
    segments: tuple[ComparedSegment, ...]
    correlation: Interval
    predicted_by: dict[str, Interval]
    groups: dict[str, tuple[Interval, Interval, Interval | None]]

    def differing(self, count: int = 5) -> tuple[list[ComparedSegment], list[ComparedSegment]]:
        """Returns the segments that differ most: outcome above meaning (harmless), and meaning above outcome."""
        ordered = sorted(self.segments, key=lambda one: one.outcome - one.meaning)
        above = [one for one in ordered[::-1][:count] if one.outcome > one.meaning]
        return above, [one for one in ordered[:count] if one.outcome < one.meaning]


def compare_labels(collection: Collection, judge: str) -> Comparison:
    """Compares the outcome labels of a collection with a judge's.

    Raises:
        ProbeError: one kind of labels is missing, or no segment has both.
    """
    segments = _segments(collection, judge)
    if not segments:
        raise ProbeError(
            f"no segment of {collection.folder} has both an outcome and a label by the judge {judge!r}; measure more "
            "problems"
        )
    boot = ProblemBootstrap(
        [one.problem_id for one in segments], torch.tensor([float(one.count) for one in segments])
    )
    meaning = _tensor([one.meaning for one in segments])
    outcome = _tensor([one.outcome for one in segments])
    gain = None
    if all(one.baseline is not None for one in segments):
        gain = outcome - _tensor([one.baseline or 0.0 for one in segments])
    masks = {
        f"meaning at least {POSITIVE}": meaning >= POSITIVE,
        f"meaning between 0 and {POSITIVE}": (meaning > 0) & (meaning < POSITIVE),
        "meaning 0": meaning == 0,
    }
    groups = {
        name: (
            boot.interval(share, mask),
            boot.interval(share, outcome, row_weights=mask),
            None if gain is None else boot.interval(share, gain, row_weights=mask),
        )
        for name, mask in masks.items()
        if bool(mask.any())
    }
    correlation = boot.interval(spearman, meaning, outcome)
    return Comparison(judge, segments, correlation, _predicted_by(boot, segments, meaning), groups)


def comparison_tables(comparison: Comparison) -> list[TableSection]:
    """Returns the comparison as tables for a terminal."""
    size = f"{len(comparison.segments)} draft-written segments"
    correlations = {"of both labels": [_cell(comparison.correlation)]}
    correlations |= {
        f"of {name} with the gain": [_cell(figure)] for name, figure in comparison.predicted_by.items()
    }
    groups = {
        name: [_cell(amount), _cell(outcome), "" if gain is None else _cell(gain)]
        for name, (amount, outcome, gain) in comparison.groups.items()
    }
    tables = [
        TableSection(
            f"Outcome against the judge {comparison.judge}", size, ["Spearman correlation"], correlations
        ),
        TableSection("By meaning", "", ["share of segments", "right answers", "gain"], groups),
    ]
    for title, rows in zip(("Harmless", "Harmful"), comparison.differing(), strict=True):
        cells = {
            f"{number}. {_short(one.text)}": [f"{one.meaning:.2f}", f"{one.outcome:.2f}"]
            for number, one in enumerate(rows, start=1)
        }
        if cells:
            tables.append(TableSection(f"{title}, by outcome", "", ["meaning", "outcome"], cells))
    return tables


def _segments(collection: Collection, judge: str) -> tuple[ComparedSegment, ...]:
    """Returns the draft-written segments that have both labels."""
    outcomes, meanings = read_outcomes(collection), read_meanings(collection, judge)
    found: list[ComparedSegment] = []
    for shard in collection:
        measured, judged = outcomes[shard.problem_id], meanings.get(shard.problem_id)
        if judged is None or len(judged) != len(shard.segments):
            continue
        labels = count_labels(shard.segments, judged, "target", "unbiased")
        for index, (segment, label) in enumerate(zip(shard.segments, labels, strict=True)):
            right = tuple(measured.of(index))
            if segment.author != "draft" or label is None or not right:
                continue
            before = measured.contexts.get(segment.context_id)
            baseline = sum(before) / len(before) if before else None
            found.append(
                ComparedSegment(shard.problem_id, segment.text, segment.count, label, right, baseline)
            )
    return tuple(found)


def _predicted_by(
    boot: ProblemBootstrap, segments: Sequence[ComparedSegment], meaning: Tensor
) -> dict[str, Interval]:
    """Returns how well each label ranks the gains that the second half of the continuations shows."""
    if any(one.baseline is None or len(one.right) < 2 for one in segments):
        return {}
    halves = [len(one.right) // 2 for one in segments]
    pairs = list(zip(segments, halves, strict=True))
    first = _tensor([sum(one.right[:half]) / half for one, half in pairs])
    second = _tensor([sum(one.right[half:]) / (len(one.right) - half) for one, half in pairs])
    gain = second - _tensor([one.baseline or 0.0 for one in segments])
    return {
        "meaning": boot.interval(spearman, meaning, gain),
        "outcome": boot.interval(spearman, first, gain),
    }


def _tensor(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _cell(figure: Interval) -> str:
    if figure.value != figure.value:
        return "–"
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MAX_TEXT else line[: _MAX_TEXT - 1] + "…"
