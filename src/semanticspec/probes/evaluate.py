"""How good estimates of semantic probabilities are, beside signals that cost nothing."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from semanticspec.probes.examples import Examples
from semanticspec.probes.features import CHEAP_SIGNALS, compute_features

POSITIVE = 0.5
"""A segment counts as one the model would say from this label on."""


def auroc(scores: Tensor, positive: Tensor, weights: Tensor | None = None) -> float:
    """Probability that a positive row scores above a negative one, ties counting half; nan without both
    kinds.

    Source: the Mann-Whitney form of the area under the ROC curve.

    Args:
        scores: `[rows]`. positive: `[rows]`, bool. weights: `[rows]`, how often a row counts; None = once.
    """
    weights = torch.ones(len(scores)) if weights is None else weights
    _, place = torch.unique(scores, return_inverse=True)
    size = int(place.max()) + 1 if len(scores) else 0
    hits = torch.zeros(size, dtype=torch.float64).index_add_(0, place, (weights * positive).double())
    misses = torch.zeros(size, dtype=torch.float64).index_add_(0, place, (weights * ~positive).double())
    below = misses.cumsum(0) - misses
    total = float(hits.sum() * misses.sum())
    return float((hits * (below + misses / 2)).sum()) / total if total else float("nan")


def errors(estimates: Tensor, labels: Tensor, weights: Tensor) -> dict[str, float]:
    """R2 (share of the labels' variance explained) and mean absolute error; `[rows]` each."""
    total = weights.sum()
    mean = (weights * labels).sum() / total
    residual = (weights * (labels - estimates) ** 2).sum()
    variance = (weights * (labels - mean) ** 2).sum()
    return {
        "r2": float(1 - residual / variance) if float(variance) > 0 else float("nan"),
        "mae": float((weights * (labels - estimates).abs()).sum() / total),
    }


def evaluate(estimates: Tensor, examples: Examples) -> dict[str, float]:
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
    recorded = all(values.ranks and values.entropies for values in rows.signals)
    for name in CHEAP_SIGNALS if recorded else CHEAP_SIGNALS[:3]:
        signal = torch.tensor([compute_features((name,), values)[0] for values in rows.signals])
        suffix = "_logprob" if name in CHEAP_SIGNALS[:3] else ""
        figures[f"auroc_{name}{suffix}"] = auroc(signal, positive, rows.weights)
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
