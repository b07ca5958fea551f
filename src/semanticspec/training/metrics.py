"""Figures of estimates against labels, with bootstrap intervals over problems.

The measures take the weights of many resamples at once: a report needs about 100 figures with 1000 resamples each,
and scikit-learn's functions, at 1 to 3 ms a call, would take minutes. Tests compare them with scikit-learn and scipy.

Every measure takes `weights`, `[resamples, rows]`, float64, as its last argument and returns `[resamples]`, nan where
a resample does not determine the figure.
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
"""Segments with at least this label count as positive: the model would say them."""

RESAMPLES = 1000
NUM_BINS = 10


class Interval(NamedTuple):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


class ProblemBootstrap:
    """Resamples whole problems with replacement; the same draws for every figure, so differences are paired.

    Attributes:
        weights: `[1 + resamples, rows]`, float64; row 0 is the original data.
    """

    def __init__(
        self, problem_ids: Sequence[str], weights: Tensor, resamples: int = RESAMPLES, seed: int = 0
    ) -> None:
        numbers = {name: number for number, name in enumerate(sorted(set(problem_ids)))}
        problem = torch.tensor([numbers[name] for name in problem_ids], dtype=torch.long)
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randint(len(numbers), (resamples, len(numbers)), generator=generator)
        times = torch.zeros(resamples, len(numbers), dtype=torch.float64)
        times.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
        times = torch.cat([torch.ones(1, len(numbers), dtype=torch.float64), times])
        self.weights = times[:, problem] * weights.double()

    def interval(
        self, measure: Callable[..., Tensor], *columns: Tensor, row_weights: Tensor | None = None
    ) -> Interval:
        """Computes a measure and its 95 % interval.

        Args:
            measure: called with the columns and the weights `[resamples, rows]`; returns `[resamples]`.
            columns: `[rows]` each.
            row_weights: `[rows]`, extra weight of every row, such as its probability to be accepted.
        """
        weights = self.weights if row_weights is None else self.weights * row_weights.double()
        values = measure(*columns, weights)
        value, resampled = float(values[0]), values[1:]
        resampled = resampled[~resampled.isnan()]
        if not len(resampled):
            return Interval(value, float("nan"), float("nan"))
        low, high = resampled.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        return Interval(value, low, high)


def point_estimate(
    measure: Callable[..., Tensor], first: Tensor, second: Tensor, weights: Tensor | None = None
) -> float:
    """Computes a measure once, with weights `[rows]` (None = 1 each)."""
    weights = torch.ones(len(first)) if weights is None else weights
    return float(measure(first, second, weights.double()[None])[0])


def _weight_by_value(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The total weight at each distinct value, ascending, `[resamples, distinct]`; and every row's index there."""
    distinct, index = torch.unique(values, return_inverse=True)
    totals = torch.zeros(len(weights), len(distinct), dtype=torch.float64)
    return totals.index_add_(1, index, weights), index


def area_under_roc(scores: Tensor, positive: Tensor, weights: Tensor) -> Tensor:
    """Probability that a positive row scores above a negative one; ties count half.

    Source: the Mann-Whitney form of the area under the ROC curve.
    """
    positives, _ = _weight_by_value(scores, weights * positive)
    negatives, _ = _weight_by_value(scores, weights * ~positive)
    below = negatives.cumsum(1) - negatives
    return (positives * (below + negatives / 2)).sum(1) / (positives.sum(1) * negatives.sum(1))


def average_precision(scores: Tensor, positive: Tensor, weights: Tensor) -> Tensor:
    """Mean precision over the positives, from the highest score down."""
    positives, _ = _weight_by_value(-scores, weights * positive)
    negatives, _ = _weight_by_value(-scores, weights * ~positive)
    found = positives.cumsum(1)
    precision = found / (found + negatives.cumsum(1)).clamp_min(1e-300)
    return (positives * precision).sum(1) / positives.sum(1)


def r_squared(estimates: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Share of the labels' variance explained; below 0 is worse than predicting their mean."""
    labels = labels.double()
    mean = _weighted_mean(labels, weights)[:, None]
    variance = (weights * (labels - mean) ** 2).sum(1)
    residual = (weights * (labels - estimates.double()) ** 2).sum(1)
    return torch.where(variance > 0, 1 - residual / variance, torch.nan)


def mean_absolute_error(estimates: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Mean distance between estimates and labels."""
    return _weighted_mean((labels.double() - estimates.double()).abs(), weights)


def spearman(estimates: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Rank correlation; ties get their mean rank."""

    def centred_ranks(values: Tensor) -> Tensor:
        totals, index = _weight_by_value(values, weights)
        ranks = (totals.cumsum(1) - totals / 2)[:, index]
        return ranks - _weighted_mean(ranks, weights)[:, None]

    first, second = centred_ranks(estimates), centred_ranks(labels)
    covariance = (weights * first * second).sum(1)
    scale = ((weights * first**2).sum(1) * (weights * second**2).sum(1)).sqrt()
    return torch.where(scale > 0, covariance / scale, torch.nan)


def reliability(estimates: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weight, mean estimate and mean label in ten equal-width bins of the estimate, `[resamples, bins]` each."""
    place = (estimates.double() * NUM_BINS).long().clamp(0, NUM_BINS - 1)

    def in_bins(values: Tensor) -> Tensor:
        return torch.zeros(len(weights), NUM_BINS, dtype=torch.float64).index_add_(1, place, values)

    totals = in_bins(weights)
    sums = (in_bins(weights * values.double()) for values in (estimates, labels))
    estimate, label = (torch.where(totals > 0, total / totals, torch.nan) for total in sums)
    return totals, estimate, label


def calibration_error(estimates: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Expected calibration error: weighted mean over the bins of |mean estimate - mean label|."""
    totals, estimate, label = reliability(estimates, labels, weights)
    return (totals * (estimate - label).abs()).nansum(1) / weights.sum(1)


def share(rows: Tensor, weights: Tensor) -> Tensor:
    """Weighted share of the rows `[rows]`, bool or probabilities."""
    return _weighted_mean(rows.double(), weights)


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    return (weights * values).sum(1) / weights.sum(1)


def signal_values(names: Sequence[str], signals: Sequence[TokenSignals]) -> dict[str, Tensor]:
    """Returns the named signals of all rows, `[rows]` each; leaves out those that some row does not have."""
    found: dict[str, Tensor] = {}
    for name in names:
        try:
            values = torch.tensor([compute_features((name,), row)[0] for row in signals], dtype=torch.float64)
        except SemanticSpecError:  # needs ranks or entropies that a pass did not record
            continue
        if bool(torch.isfinite(values).all()):
            found[name] = values
    return found


def card_metrics(estimates: Tensor, examples: Examples) -> dict[str, float]:
    """Computes the figures of a probe's card on draft-written segments, weighted by how often they were drawn.

    Args:
        estimates: semantic probabilities, `[rows]`, of all examples; rows that the target wrote are left out.

    Returns:
        `auroc`, `r2`, `mae`; `auroc_loop` and `r2_loop` in contexts that the loop wrote; `auroc_<signal>` of the
        cheap signals; `auroc_ceiling`: one half of the samples predicting the other half; shares and sizes. Figures
        that the rows do not determine are left out.
    """
    rows, estimates = examples.select(examples.drafted), estimates[examples.drafted]
    if not len(rows):
        return {}
    positive, loop, total = rows.labels >= POSITIVE, rows.from_loop, float(rows.weights.sum())
    figures = {
        "auroc": point_estimate(area_under_roc, estimates, positive, rows.weights),
        "r2": point_estimate(r_squared, estimates, rows.labels, rows.weights),
        "mae": point_estimate(mean_absolute_error, estimates, rows.labels, rows.weights),
    }
    if bool(loop.any()):
        weights = rows.weights[loop]
        figures["auroc_loop"] = point_estimate(area_under_roc, estimates[loop], positive[loop], weights)
        figures["r2_loop"] = point_estimate(r_squared, estimates[loop], rows.labels[loop], weights)
    for name, values in signal_values(CHEAP_SIGNALS, rows.signals).items():
        suffix = "_logprob" if name in ("mean", "minimum", "sum") else ""
        figures[f"auroc_{name}{suffix}"] = point_estimate(area_under_roc, values, positive, rows.weights)
    first, second = rows.halves.unbind(1)
    figures["auroc_ceiling"] = point_estimate(area_under_roc, first, second >= POSITIVE, rows.weights)
    figures["share_positive"] = float(rows.weights[positive].sum()) / total
    figures["num_rows"] = float(len(rows))
    figures["num_segments"] = total
    figures["num_problems"] = float(len(set(rows.problem_ids)))
    return {name: round(value, 4) for name, value in figures.items() if value == value}


def summary(metrics: Mapping[str, float]) -> str:
    """Returns the main figures in one line."""
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
