"""Intervals against closed forms and published examples."""

from __future__ import annotations

import random

import pytest

from semanticspec.benchmark.statistics import difference, percentiles, ratio_of_sums, share


def test_interval_of_a_mean_is_that_of_the_normal_approximation():
    values = [float(i < 300) for i in range(1000)]
    value, (low, high) = ratio_of_sums(values, [1.0] * len(values))
    assert value == pytest.approx(0.3)
    half_width = 1.96 * (0.3 * 0.7 / 1000) ** 0.5
    assert (low, high) == pytest.approx((0.3 - half_width, 0.3 + half_width), abs=0.003)


def test_ratio_of_sums_weighs_problems_by_their_seconds():
    value, (low, high) = ratio_of_sums([10.0, 1.0], [5.0, 1.0])
    assert value == pytest.approx(11 / 6)
    assert low <= value <= high
    same, interval = ratio_of_sums([4.0, 8.0, 2.0], [2.0, 4.0, 1.0])
    assert (same, *interval) == pytest.approx((2.0, 2.0, 2.0))


def test_interval_covers_the_truth_about_as_often_as_it_says():
    generator = random.Random(3)
    hits = 0
    for _ in range(200):
        _, (low, high) = ratio_of_sums([generator.random() for _ in range(50)], [1.0] * 50)
        hits += low <= 0.5 <= high
    assert hits / 200 == pytest.approx(0.95, abs=0.05)


def test_interval_of_a_share_is_wilsons():
    """The worked example of Newcombe 1998: 81 of 263 is .2553 to .3662."""
    value, (low, high) = share([1.0] * 81 + [0.0] * 182)
    assert value == pytest.approx(81 / 263)
    assert (low, high) == pytest.approx((0.2553, 0.3662), abs=2e-4)
    sure, (low, high) = share([1.0] * 10)
    assert (sure, high) == pytest.approx((1.0, 1.0))
    assert low == pytest.approx(10 / (10 + 1.959964**2))


def test_interval_of_a_paired_difference_is_bonett_and_prices():
    """Their formula: (b + 1 - c - 1) / (n + 2) -+ z sqrt((p + q - (p - q)^2) / (n + 2)), p = (b + 1) / (n + 2)."""
    better, worse, same = 12, 5, 83
    values = [1.0] * better + [0.0] * worse + [1.0] * same
    others = [0.0] * better + [1.0] * worse + [1.0] * same
    value, (low, high) = difference(values, others)
    assert value == pytest.approx(0.07)
    n, p, q = 102, 13 / 102, 6 / 102
    half = 1.959964 * ((p + q - (p - q) ** 2) / n) ** 0.5
    assert (low, high) == pytest.approx((p - q - half, p - q + half))
    none, (low, high) = difference([1.0] * 8, [1.0] * 8)
    assert none == 0
    assert low < 0 < high


def test_percentiles_are_interpolated():
    assert percentiles([1.0, 2.0, 3.0]) == pytest.approx({"p50": 2.0, "p90": 2.8, "p99": 2.98})
