"""Estimates with 95 % intervals. The unit is the problem: all samples of a problem are resampled together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

RESAMPLES = 4000
Interval = tuple[float, float]
_Z = 1.959963984540054  # two-sided 95 %


def ratio_of_sums(numerators: Sequence[float], denominators: Sequence[float]) -> tuple[float, Interval]:
    """Returns sum(numerators) / sum(denominators) with a percentile bootstrap interval.

    Args:
        numerators, denominators: one value per problem, paired.
    """
    top, bottom = np.asarray(numerators), np.asarray(denominators)
    picks = _resamples(len(top))
    low, high = np.quantile(top[picks].sum(1) / bottom[picks].sum(1), (0.025, 0.975))
    return float(top.sum() / bottom.sum()), (float(low), float(high))


def ratio_of_rates(
    seconds: Sequence[float],
    tokens: Sequence[float],
    other_seconds: Sequence[float],
    other_tokens: Sequence[float],
) -> tuple[float, Interval] | None:
    """Returns how much higher the first seconds per token are than the others, with a percentile bootstrap interval.

    Args:
        seconds, tokens, other_seconds, other_tokens: one value per problem, paired.

    Returns:
        None if there are no tokens, in all or in a resample.
    """
    parts = [np.asarray(values, dtype=float) for values in (seconds, tokens, other_seconds, other_tokens)]
    picks = _resamples(len(parts[0]))
    drawn_s, drawn, other_s, other = (values[picks].sum(1) for values in parts)
    if not (drawn.all() and other.all() and other_s.all()):
        return None
    low, high = np.quantile(drawn_s / drawn / (other_s / other), (0.025, 0.975))
    all_s, all_tokens, all_other_s, all_other = (float(values.sum()) for values in parts)
    return all_s / all_tokens / (all_other_s / all_other), (float(low), float(high))


def share(values: Sequence[float]) -> tuple[float, Interval]:
    """Returns the mean of values in [0, 1], one per problem, with a Wilson score interval.

    With one sample per problem the values are 0 or 1, as the interval assumes. Means of several samples vary less
    than that, so the interval is conservative. Unlike a bootstrap interval, it is not empty when all values agree.

    Source: Wilson 1927; Brown, Cai, DasGupta 2001.
    """
    count, value = len(values), float(np.mean(values))
    spread = _Z**2 / count
    center = (value + spread / 2) / (1 + spread)
    half = _Z * float(np.sqrt(value * (1 - value) / count + spread / (4 * count))) / (1 + spread)
    return value, (max(0.0, center - half), min(1.0, center + half))


def difference(values: Sequence[float], others: Sequence[float]) -> tuple[float, Interval]:
    """Returns the mean of values - others, paired by problem and each in [0, 1], with an adjusted Wald interval.

    Two pseudo-problems, one in favor of each side, keep the interval from being empty when no problem differs.

    Source: Bonett and Price 2012, "Adjusted Wald confidence interval for a difference of binomial proportions based
    on paired data". With several samples per problem, the variance of the differences replaces the binomial one.
    """
    differences = np.asarray(values) - np.asarray(others)
    adjusted = np.append(differences, [1.0, -1.0])
    center, half = float(adjusted.mean()), _Z * float(adjusted.std() / np.sqrt(len(adjusted)))
    return float(differences.mean()), (max(-1.0, center - half), min(1.0, center + half))


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Returns the percentiles 50, 90 and 99, with linear interpolation."""
    found = np.quantile(values, (0.5, 0.9, 0.99))
    return {name: float(value) for name, value in zip(("p50", "p90", "p99"), found, strict=True)}


def _resamples(num_problems: int) -> NDArray[np.int64]:
    """Returns indices `[RESAMPLES, num_problems]`, drawn with replacement; the same for every figure of a run.

    Published intervals were drawn with torch's generator; it is kept so that they can be reproduced exactly.
    """
    generator = torch.Generator().manual_seed(0)
    indices: NDArray[np.int64] = torch.randint(
        num_problems, (RESAMPLES, num_problems), generator=generator
    ).numpy()
    return indices
