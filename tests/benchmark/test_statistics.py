"""Figures of a comparison against closed forms."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from semanticspec.benchmark.methods import random_control
from semanticspec.benchmark.rows import Row
from semanticspec.benchmark.statistics import difference, mean, ratio_of_sums, share
from semanticspec.benchmark.summary import Comparison, summarize
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


def test_samples_of_a_problem_move_together():
    """Four equal samples of ten problems say no more than one sample of each does."""
    wall = {str(i): 1.0 + i for i in range(10)}
    once = [
        row(i, name, wall_s=wall[i] / speed) for i in wall for name, speed in (("target", 1), ("semantic", 2))
    ]
    fourfold = [replace(r, sample=sample) for r in once for sample in range(4)]
    for figure in ("speedup", "speedup_ci95", "accuracy", "accuracy_ci95", "accuracy_diff_ci95"):
        assert summarize(fourfold)["semantic"][figure] == pytest.approx(summarize(once)["semantic"][figure])
    assert summarize(fourfold)["semantic"]["problems"] == 10
    assert summarize(fourfold)["semantic"]["requests"] == 40


def row(problem_id: str, method: str = "target", **fields) -> Row:
    usual = {
        "task": "t",
        "sample": 0,
        "seed": 0,
        "digest": "",
        "gold": "1",
        "answer": "1",
        "right": True,
        "finish_reason": "stop",
        "wall_s": 2.0,
        "num_tokens": 100,
    }
    return Row(problem_id=problem_id, method=method, **usual | fields)


def test_a_method_cannot_look_fast_by_failing():
    """It answers nothing, at once: charged the target's seconds on top, it is slower than the target."""
    failed = {"right": False, "finish_reason": "error", "wall_s": 0.01, "num_tokens": 0}
    rows = [r for i in range(20) for r in (row(str(i)), row(str(i), "quitter", **failed))]
    figures = summarize(rows)["quitter"]
    assert figures["speedup"] < 1
    assert figures["failed_share"] == 1
    assert figures["accuracy"] == 0
    assert figures["accuracy_diff_ci95"][1] < -0.7
    half = [r for i in range(20) for r in (row(str(i)), row(str(i), "half", **(failed if i % 2 else {})))]
    assert summarize(half)["half"]["speedup"] < 1


def test_a_method_cannot_look_fast_by_stopping_early():
    """Its seconds fall, and so do accuracy and length; a token costs what it cost."""
    early = {"right": False, "finish_reason": "length", "num_tokens": 10, "wall_s": 0.2}
    rows = [r for i in range(20) for r in (row(str(i)), row(str(i), "quitter", **early))]
    figures = summarize(rows)["quitter"]
    assert figures["accuracy_diff_ci95"][1] < -0.7
    assert figures["length_ratio"] == pytest.approx(0.1)
    assert figures["truncated_share"] == 1
    assert figures["seconds_per_token"] == pytest.approx(summarize(rows)["target"]["seconds_per_token"])


def test_a_method_cannot_look_fast_by_leaving_hard_problems_out():
    """Only problems that every method has finished count, and wrong answers count in the seconds like right ones."""
    rows = [
        row("easy"),
        row("wrong", right=False, wall_s=6.0),
        row("easy", "semantic", wall_s=1.0),
        row("wrong", "semantic", wall_s=1.0),
        row("hard", wall_s=1000.0),
    ]
    figures = summarize(rows)
    assert figures["semantic"]["speedup"] == pytest.approx(4.0)
    assert figures["target"]["problems"] == 2
    assert figures["semantic"]["accuracy_diff"] == pytest.approx(0.5)


def test_throughput_is_of_blocks():
    """Two requests at once: 4 s of the target's for two answers of 3 s each, 2 s of the method's."""
    rows = []
    for i in range(6):
        block = {"block": i // 2}
        rows.append(row(str(i), wall_s=3.0, share_s=2.0, num_tokens=10, **block))
        rows.append(row(str(i), "semantic", wall_s=1.5 + i / 10, share_s=1.0, num_tokens=10, **block))
    figures = summarize(rows)
    assert figures["semantic"]["throughput_ratio"] == pytest.approx(2.0)
    assert figures["semantic"]["throughput_ratio_ci95"] == pytest.approx((2.0, 2.0))
    assert figures["target"]["tokens_per_s"] == pytest.approx(5.0)
    assert figures["semantic"]["requests_per_s"] == pytest.approx(1.0)
    assert figures["semantic"]["latency_s"] == pytest.approx({"p50": 1.75, "p90": 1.95, "p99": 1.995})
    failed = [replace(own, finish_reason="error") if own.method == "semantic" else own for own in rows]
    assert summarize(failed)["semantic"]["throughput_ratio"] == pytest.approx(2 / 3)
    one_by_one = [replace(own, block=int(own.problem_id)) for own in rows]
    assert "throughput_ratio" not in summarize(one_by_one)["semantic"]
    before = [replace(own, share_s=0.0) for own in rows]
    assert "requests_per_s" not in summarize(before)["semantic"]


def test_speedup_is_against_the_faster_target():
    rows = [row("p", wall_s=3.0), row("p", "hf-target", wall_s=2.0), row("p", "semantic", wall_s=1.0)]
    figures = summarize(rows)
    assert figures["semantic"]["speedup"] == pytest.approx(2.0)
    assert figures["target"]["speedup"] == pytest.approx(2 / 3)
    assert figures["target"]["speedup_to_semantic"] == pytest.approx(1 / 3)
    assert figures["hf-target"]["speedup"] == 1
    assert "speedup" not in summarize(rows[2:])["semantic"]


def test_limit_follows_from_the_costs_of_tokens():
    """Drafting 1 ms, reading 0.5 ms a token and 20 ms a segment of 40 tokens; the target 10 ms: 10 / 2 = 5 times."""
    rows = []
    for i in range(6):
        segments, tokens = 2 + i % 3, 40 * (2 + i % 3)
        counts = {"num_tokens": tokens, "drafted_tokens": tokens, "draft_tokens": tokens}
        seconds = {"draft_s": 0.001 * tokens, "verify_s": 0.0005 * tokens + 0.02 * segments}
        wall_s = sum(seconds.values())
        rows.append(row(str(i), wall_s=0.01 * tokens, num_tokens=tokens))
        own = row(str(i), "always", wall_s=wall_s, segments_accepted=segments, **counts, **seconds)
        if i == 5:  # another mean length, or tokens and segments could not be told apart
            own = replace(own, drafted_tokens=tokens + 40, draft_tokens=tokens + 40, num_tokens=tokens + 40)
            own = replace(own, draft_s=own.draft_s + 0.04, verify_s=own.verify_s + 0.02)
        rows.append(own)
    costs = Comparison(rows).costs()
    assert costs.drafted_token_s == pytest.approx(0.001)
    assert costs.verified_token_s == pytest.approx(0.0005)
    assert costs.verified_segment_s == pytest.approx(0.02)
    assert costs.target_token_s == pytest.approx(0.01)
    speculated = 0.001 + 0.0005 + 0.02 / costs.segment_tokens
    assert costs.limit_speedup == pytest.approx(0.01 / speculated)
    assert 0.9 < summarize(rows)["always"]["limit_share"] < 1.1
    optimized = [replace(own, method="never+token-speculation") for own in rows if own.method == "always"]
    assert "limit_share" in summarize([*rows, *optimized])["never+token-speculation"]


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
