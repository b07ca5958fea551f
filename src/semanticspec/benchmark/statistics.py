"""Ratios and differences with their spread: bootstrap over problems, so that all of a problem moves together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

RESAMPLES = 4000
Interval = tuple[float, float]


def ratio_of_sums(numerators: Sequence[float], denominators: Sequence[float]) -> tuple[float, Interval]:
    """sum(numerators) / sum(denominators) over problems, with a 95 % bootstrap interval.

    Args:
        numerators, denominators: one value a problem, paired.
    """
    top, bottom = _vector(numerators), _vector(denominators)
    picks = _resamples(len(top))
    return float(top.sum() / bottom.sum()), _interval(top[picks].sum(1) / bottom[picks].sum(1))


def mean(values: Sequence[float]) -> tuple[float, Interval]:
    """Mean over problems with a 95 % bootstrap interval; pass differences for a paired comparison."""
    vector = _vector(values)
    return float(vector.mean()), _interval(vector[_resamples(len(vector))].mean(1))


def _vector(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _resamples(num_problems: int) -> Tensor:
    """Indices `[resamples, problems]`, drawn with replacement; the same for every figure of a run."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(num_problems, (RESAMPLES, num_problems), generator=generator)


def _interval(samples: Tensor) -> Interval:
    low, high = samples.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high
