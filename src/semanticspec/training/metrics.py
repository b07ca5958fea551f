"""Figures of estimates against labels, for one set of row weights or many at once (resamples of problems).

scikit-learn has most of them; these are written out because a bootstrap needs each a thousand times, and
here that is one tensor operation. The tests compare them with scikit-learn's and scipy's.

Every function takes `weights`, `[resamples, rows]`, float64, and returns `[resamples]`, nan where a resample
cannot give the figure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from semanticspec.errors import SemanticSpecError
from semanticspec.probes.features import CHEAP_SIGNALS, TokenSignals, compute_features
from semanticspec.training.data.examples import Examples

POSITIVE = 0.5
"""A segment counts as one the model would say from this label on."""

RESAMPLES = 1000
NUM_BINS = 10
Measure = Callable[[Tensor], Tensor]


class Interval(NamedTuple):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


class ProblemBootstrap:
    """Resamples problems with replacement, all rows of a problem together; the same draws for every figure.

    Attributes:
        weights: `[1 + resamples, rows]`, float64; row 0 is the data themselves.
    """

    def __init__(
        self, problem_ids: Sequence[str], weights: Tensor, resamples: int = RESAMPLES, seed: int = 0
    ) -> None:
        names = {name: number for number, name in enumerate(sorted(set(problem_ids)))}
        place = torch.tensor([names[name] for name in problem_ids], dtype=torch.long)
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randint(len(names), (resamples, len(names)), generator=generator)
        times = torch.zeros(resamples, len(names), dtype=torch.float64)
        times.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
        times = torch.cat([torch.ones(1, len(names), dtype=torch.float64), times])
        self.weights = times[:, place] * weights.double()

    def interval(self, measure: Measure, rows: Tensor | None = None) -> Interval:
        """A measure with its 95 % interval.

        Args:
            measure: from weights `[resamples, rows]` to values `[resamples]`; a difference of two is paired.
            rows: `[rows]`, factors on every row's weight, such as how probably it is accepted.
        """
        values = measure(self.weights if rows is None else self.weights * rows.double())
        value, drawn = float(values[0]), values[1:]
        drawn = drawn[~drawn.isnan()]
        if not len(drawn):
            return Interval(value, float("nan"), float("nan"))
        low, high = drawn.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        return Interval(value, low, high)


def _counted(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The weight at each distinct value, rising, `[resamples, distinct]`; and every row's place among them."""
    _, place = torch.unique(values, return_inverse=True)
    size = int(place.max()) + 1 if len(values) else 0
    counted = torch.zeros(len(weights), size, dtype=torch.float64)
    return counted.index_add_(1, place, weights), place


def area_under_roc(scores: Tensor, positive: Tensor, weights: Tensor) -> Tensor:
    """Probability that a positive row scores above a negative one, ties counting half.

    Source: the Mann-Whitney form of the area under the ROC curve.
    """
    hits, _ = _counted(scores, weights * positive)
    misses, _ = _counted(scores, weights * ~positive)
    below = misses.cumsum(1) - misses
    return (hits * (below + misses / 2)).sum(1) / (hits.sum(1) * misses.sum(1))


def average_precision(scores: Tensor, positive: Tensor, weights: Tensor) -> Tensor:
    """Mean precision over the positives, from the highest score down: the area under the precision-recall
    steps."""
    hits, _ = _counted(-scores, weights * positive)
    misses, _ = _counted(-scores, weights * ~positive)
    found = hits.cumsum(1)
    precision = found / (found + misses.cumsum(1)).clamp_min(1e-300)
    return (hits * precision).sum(1) / hits.sum(1)


def r_squared(estimates: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Share of the labels' variance explained; below 0 is worse than their mean."""
    labels = labels.double()
    mean = (weights * labels).sum(1, keepdim=True) / weights.sum(1, keepdim=True)
    variance = (weights * (labels - mean) ** 2).sum(1)
    residual = (weights * (labels - estimates.double()) ** 2).sum(1)
    return torch.where(variance > 0, 1 - residual / variance, torch.nan)


def mean_absolute_error(estimates: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Mean distance of estimates and labels."""
    return (weights * (labels.double() - estimates.double()).abs()).sum(1) / weights.sum(1)


def spearman(estimates: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Correlation of the rows' ranks, ties at their middle."""

    def centred_ranks(values: Tensor) -> Tensor:
        counted, place = _counted(values, weights)
        ranks = (counted.cumsum(1) - counted / 2)[:, place]
        return ranks - (weights * ranks).sum(1, keepdim=True) / weights.sum(1, keepdim=True)

    first, second = centred_ranks(estimates), centred_ranks(labels)
    together = (weights * first * second).sum(1)
    apart = ((weights * first**2).sum(1) * (weights * second**2).sum(1)).sqrt()
    return torch.where(apart > 0, together / apart, torch.nan)


def reliability(estimates: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Estimates in ten equal bins of [0, 1]: weight, mean estimate and mean label of each,
    `[resamples, bins]`."""
    place = (estimates.double() * NUM_BINS).long().clamp(0, NUM_BINS - 1)

    def in_bins(values: Tensor) -> Tensor:
        return torch.zeros(len(weights), NUM_BINS, dtype=torch.float64).index_add_(1, place, values)

    counted = in_bins(weights)
    sums = (in_bins(weights * values.double()) for values in (estimates, labels))
    estimate, label = (torch.where(counted > 0, total / counted, torch.nan) for total in sums)
    return counted, estimate, label


def calibration_error(estimates: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Expected calibration error: mean distance of a bin's mean estimate and mean label, by weight."""
    counted, estimate, label = reliability(estimates, labels, weights)
    return (counted * (estimate - label).abs()).nansum(1) / weights.sum(1)


def auroc(scores: Tensor, positive: Tensor, weights: Tensor | None = None) -> float:
    """`area_under_roc` of single weights `[rows]` (None = every row once); nan without both kinds."""
    weights = torch.ones(len(scores)) if weights is None else weights
    return float(area_under_roc(scores, positive, weights.double()[None])[0])


def errors(estimates: Tensor, labels: Tensor, weights: Tensor) -> dict[str, float]:
    """R2 (share of the labels' variance explained) and mean absolute error; `[rows]` each."""
    measures = {"r2": r_squared, "mae": mean_absolute_error}
    return {
        name: float(measure(estimates, labels, weights.double()[None])[0])
        for name, measure in measures.items()
    }


def signal_values(names: Sequence[str], signals: Sequence[TokenSignals]) -> dict[str, Tensor]:
    """The named signals of every row, `[rows]` each; those that were not recorded for all rows left out."""
    found: dict[str, Tensor] = {}
    for name in names:
        try:
            values = torch.tensor([compute_features((name,), row)[0] for row in signals], dtype=torch.float64)
        except SemanticSpecError:  # this signal needs ranks or entropies that the pass did not give
            continue
        if bool(torch.isfinite(values).all()):
            found[name] = values
    return found


def card_metrics(estimates: Tensor, examples: Examples) -> dict[str, float]:
    """A probe's figures on the draft-written segments of some problems, counted as often as they were drawn.

    Args:
        estimates: semantic probabilities, `[rows]`, of all the examples; rows the target wrote are left out.

    Returns:
        `auroc`, `r2`, `mae`; `auroc_loop` and `r2_loop` in contexts the loop wrote; `auroc_<signal>` of the
        cheap signals; `auroc_ceiling`: one half of the samples predicting the other half; shares and sizes.
        Figures that these rows cannot give are left out.
    """
    drafted = examples.drafted
    rows, kept = examples.select(drafted), estimates[drafted]
    if not len(rows):
        return {}
    positive = rows.labels >= POSITIVE
    figures = {"auroc": auroc(kept, positive, rows.weights), **errors(kept, rows.labels, rows.weights)}
    loop = rows.from_loop
    if bool(loop.any()):
        figures["auroc_loop"] = auroc(kept[loop], positive[loop], rows.weights[loop])
        figures["r2_loop"] = errors(kept[loop], rows.labels[loop], rows.weights[loop])["r2"]
    for name, values in signal_values(CHEAP_SIGNALS, rows.signals).items():
        suffix = "_logprob" if name in ("mean", "minimum", "sum") else ""
        figures[f"auroc_{name}{suffix}"] = auroc(values, positive, rows.weights)
    first, second = rows.halves.unbind(1)
    figures["auroc_ceiling"] = auroc(first, second >= POSITIVE, rows.weights)
    total = float(rows.weights.sum())
    figures["share_positive"] = float(rows.weights[positive].sum()) / total
    figures["num_rows"] = float(len(rows))
    figures["num_segments"] = total
    figures["num_problems"] = float(len(set(rows.problem_ids)))
    return {name: round(value, 4) for name, value in figures.items() if value == value}


def summary(metrics: Mapping[str, float]) -> str:
    """The main figures in a line."""
    names = (
        "auroc",
        "auroc_loop",
        "auroc_sum_logprob",
        "auroc_minimum_logprob",
        "auroc_ceiling",
        "r2",
        "mae",
    )
    return ", ".join(f"{name} {metrics[name]:.3f}" for name in names if name in metrics)
