"""Figures of a comparison against closed forms."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from semanticspec.benchmark.comparison import Row, summarize
from semanticspec.benchmark.methods import random_control
from semanticspec.benchmark.statistics import mean, ratio_of_sums
from semanticspec.config import RuleConfig
from semanticspec.errors import ConfigError
from semanticspec.records import Result, Segment, Stats


def test_interval_of_a_mean_is_that_of_the_normal_approximation():
    values = [float(i < 300) for i in range(1000)]
    value, (low, high) = mean(values)
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
        _, (low, high) = mean([generator.random() for _ in range(50)])
        hits += low <= 0.5 <= high
    assert hits / 200 == pytest.approx(0.95, abs=0.05)


ROW = Row("p", "target", True, False, 100, 0, 0, 0, 2.0, 0.0, 0.0, 1.9, 0.0)


def test_failing_or_stopping_early_shows():
    """A method that answers nothing is fast, and its row says why it is worthless."""
    rows = []
    for i in range(20):
        rows.append(replace(ROW, problem_id=str(i)))
        rows.append(
            replace(
                ROW,
                problem_id=str(i),
                method="quitter",
                right=False,
                truncated=True,
                num_tokens=10,
                wall_s=0.2,
            )
        )
    figures = summarize(rows)["quitter"]
    assert figures["speedup"] == pytest.approx(10)
    assert figures["accuracy_diff_ci95"] == (-1.0, -1.0)
    assert figures["length_ratio"] == pytest.approx(0.1)
    assert figures["truncated_share"] == 1
    assert figures["seconds_per_token"] == pytest.approx(0.02)


def test_wrong_answers_count_in_the_seconds_and_unfinished_problems_in_nothing():
    rows = [
        ROW,
        replace(ROW, problem_id="q", right=False, wall_s=6.0),
        replace(ROW, method="semantic", wall_s=1.0),
        replace(ROW, problem_id="q", method="semantic", wall_s=1.0),
        replace(ROW, problem_id="only the target", wall_s=1000.0),
    ]
    figures = summarize(rows)
    assert figures["semantic"]["speedup"] == pytest.approx(4.0)
    assert figures["target"]["problems"] == 2
    assert figures["semantic"]["accuracy_diff"] == pytest.approx(0.5)


def test_random_control_has_the_pilots_rate_at_every_length():
    generator = random.Random(0)

    def result() -> Result:
        segments = tuple(
            Segment("draft", "", length, accepted=generator.random() < (0.9 if length <= 10 else 0.2))
            for length in (5, 9, 20, 30)
        )
        return Result("", (), segments, Stats(), "stop", True)

    rule = random_control([result() for _ in range(2000)], RuleConfig())
    assert rule.name == "random"
    rates = dict(rule.accept_rate_by_length)
    assert rates[5] == pytest.approx(0.9, abs=0.03)
    assert rates[30] == pytest.approx(0.2, abs=0.03)
    with pytest.raises(ConfigError, match="pilot"):
        random_control([], RuleConfig())
