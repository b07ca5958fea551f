"""Ratios and differences with their spread, over problems, so that all of a problem moves together."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

RESAMPLES = 4000
Interval = tuple[float, float]
_Z = 1.959963984540054  # two-sided 95 %


def ratio_of_sums(numerators: Sequence[float], denominators: Sequence[float]) -> tuple[float, Interval]:
    """sum(numerators) / sum(denominators) over problems, with a 95 % bootstrap interval.

    Args:
        numerators, denominators: one value a problem, paired.
    """
    top, bottom = _vector(numerators), _vector(denominators)
    picks = _resamples(len(top))
    return float(top.sum() / bottom.sum()), _interval(top[picks].sum(1) / bottom[picks].sum(1))


def mean(values: Sequence[float]) -> tuple[float, Interval]:
    """Mean over problems with a 95 % bootstrap interval."""
    vector = _vector(values)
    return float(vector.mean()), _interval(vector[_resamples(len(vector))].mean(1))


def share(values: Sequence[float]) -> tuple[float, Interval]:
    """Mean of one value in [0, 1] a problem, with the 95 % Wilson score interval of as many yes-or-no problems.

    With several samples a problem the values lie between 0 and 1 and spread less than that, so the interval is wide
    rather than narrow. Unlike a bootstrap's, it has a width when all problems are right.
    Source: Wilson 1927; Brown, Cai, DasGupta 2001.
    """
    count, value = len(values), math.fsum(values) / len(values)
    spread = _Z**2 / count
    middle = (value + spread / 2) / (1 + spread)
    half = _Z * math.sqrt(value * (1 - value) / count + spread / (4 * count)) / (1 + spread)
    return value, (max(0.0, middle - half), min(1.0, middle + half))


def difference(values: Sequence[float], others: Sequence[float]) -> tuple[float, Interval]:
    """Mean of values - others, paired by problem, each in [0, 1], with a 95 % adjusted Wald interval.

    Two pseudo-problems are added, one for each side, so that the interval has a width when no problem differs.
    Source: Bonett and Price 2012, "Adjusted Wald confidence interval for a difference of binomial proportions based
    on paired data"; with several samples a problem the values' own spread stands for that of yes and no.
    """
    differences = [a - b for a, b in zip(values, others, strict=True)]
    adjusted = [*differences, 1.0, -1.0]
    middle = math.fsum(adjusted) / len(adjusted)
    variance = math.fsum((value - middle) ** 2 for value in adjusted) / len(adjusted)
    half = _Z * math.sqrt(variance / len(adjusted))
    return math.fsum(differences) / len(differences), (max(-1.0, middle - half), min(1.0, middle + half))


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """The 50th, 90th and 99th, by linear interpolation; of few values the last is about the highest."""
    found = torch.quantile(_vector(values), torch.tensor([0.5, 0.9, 0.99], dtype=torch.float64)).tolist()
    return dict(zip(("p50", "p90", "p99"), found, strict=True))


def _vector(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _resamples(num_problems: int) -> Tensor:
    """Indices `[resamples, problems]`, drawn with replacement; the same for every figure of a run."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(num_problems, (RESAMPLES, num_problems), generator=generator)


def _interval(samples: Tensor) -> Interval:
    low, high = samples.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high
