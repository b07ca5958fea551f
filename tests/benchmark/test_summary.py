"""Figures of a comparison: what counts, and what a method cannot gain from."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from semanticspec.benchmark.rows import Row
from semanticspec.benchmark.summary import Comparison, summarize
from tests.support.benchmarks import make_row


def summarize_rows(rows: list[Row]) -> dict[str, dict[str, Any]]:
    return summarize(Comparison(rows))


def test_samples_of_a_problem_move_together():
    """Four equal samples of ten problems say no more than one sample of each does."""
    wall = {str(i): 1.0 + i for i in range(10)}
    once = [
        make_row(i, name, wall_s=wall[i] / speed)
        for i in wall
        for name, speed in (("target", 1), ("semantic", 2))
    ]
    fourfold = [replace(r, sample=sample) for r in once for sample in range(4)]
    for figure in ("speedup", "speedup_ci95", "accuracy", "accuracy_ci95", "accuracy_diff_ci95"):
        assert summarize_rows(fourfold)["semantic"][figure] == pytest.approx(
            summarize_rows(once)["semantic"][figure]
        )
    assert summarize_rows(fourfold)["semantic"]["problems"] == 10
    assert summarize_rows(fourfold)["semantic"]["requests"] == 40


def test_a_method_cannot_look_fast_by_failing():
    """It answers nothing, at once: charged the target's seconds on top, it is slower than the target."""
    failed = {"right": False, "finish_reason": "error", "wall_s": 0.01, "num_tokens": 0}
    rows = [r for i in range(20) for r in (make_row(str(i)), make_row(str(i), "quitter", **failed))]
    figures = summarize_rows(rows)["quitter"]
    assert figures["speedup"] < 1
    assert figures["failed_share"] == 1
    assert figures["accuracy"] == 0
    assert figures["accuracy_diff_ci95"][1] < -0.7
    half = [
        r
        for i in range(20)
        for r in (make_row(str(i)), make_row(str(i), "half", **(failed if i % 2 else {})))
    ]
    assert summarize_rows(half)["half"]["speedup"] < 1


def test_a_method_cannot_look_fast_by_stopping_early():
    """Its seconds fall, and so do accuracy and length; a token costs what it cost."""
    early = {"right": False, "finish_reason": "length", "num_tokens": 10, "wall_s": 0.2}
    rows = [r for i in range(20) for r in (make_row(str(i)), make_row(str(i), "quitter", **early))]
    figures = summarize_rows(rows)["quitter"]
    assert figures["accuracy_diff_ci95"][1] < -0.7
    assert figures["length_ratio"] == pytest.approx(0.1)
    assert figures["truncated_share"] == 1
    assert figures["seconds_per_token"] == pytest.approx(summarize_rows(rows)["target"]["seconds_per_token"])


def test_a_method_cannot_look_fast_by_leaving_hard_problems_out():
    """Only problems that every method has finished count, and wrong answers count in the seconds like right ones."""
    rows = [
        make_row("easy"),
        make_row("wrong", right=False, wall_s=6.0),
        make_row("easy", "semantic", wall_s=1.0),
        make_row("wrong", "semantic", wall_s=1.0),
        make_row("hard", wall_s=1000.0),
    ]
    figures = summarize_rows(rows)
    assert figures["semantic"]["speedup"] == pytest.approx(4.0)
    assert figures["target"]["problems"] == 2
    assert figures["semantic"]["accuracy_diff"] == pytest.approx(0.5)


def test_throughput_is_of_blocks():
    """Two requests at once: 4 s of the target's for two answers of 3 s each, 2 s of the method's."""
    rows = []
    for i in range(6):
        block = {"block": i // 2}
        rows.append(make_row(str(i), wall_s=3.0, share_s=2.0, num_tokens=10, **block))
        rows.append(make_row(str(i), "semantic", wall_s=1.5 + i / 10, share_s=1.0, num_tokens=10, **block))
    figures = summarize_rows(rows)
    assert figures["semantic"]["throughput_ratio"] == pytest.approx(2.0)
    assert figures["semantic"]["throughput_ratio_ci95"] == pytest.approx((2.0, 2.0))
    assert figures["target"]["tokens_per_s"] == pytest.approx(5.0)
    assert figures["semantic"]["requests_per_s"] == pytest.approx(1.0)
    assert figures["semantic"]["latency_s"] == pytest.approx({"p50": 1.75, "p90": 1.95, "p99": 1.995})
    failed = [replace(own, finish_reason="error") if own.method == "semantic" else own for own in rows]
    assert summarize_rows(failed)["semantic"]["throughput_ratio"] == pytest.approx(2 / 3)
    one_by_one = [replace(own, block=int(own.problem_id)) for own in rows]
    assert "throughput_ratio" not in summarize_rows(one_by_one)["semantic"]
    before = [replace(own, share_s=0.0) for own in rows]
    assert "requests_per_s" not in summarize_rows(before)["semantic"]


def test_speedup_is_against_the_faster_target():
    rows = [
        make_row("p", wall_s=3.0),
        make_row("p", "hf-target", wall_s=2.0),
        make_row("p", "semantic", wall_s=1.0),
    ]
    figures = summarize_rows(rows)
    assert figures["semantic"]["speedup"] == pytest.approx(2.0)
    assert figures["target"]["speedup"] == pytest.approx(2 / 3)
    assert figures["target"]["speedup_to_semantic"] == pytest.approx(1 / 3)
    assert figures["hf-target"]["speedup"] == 1
    assert "speedup" not in summarize_rows(rows[2:])["semantic"]


def test_limit_follows_from_the_costs_of_tokens():
    """Drafting 1 ms, reading 0.5 ms a token and 20 ms a segment of 40 tokens; the target 10 ms: 10 / 2 = 5 times."""
    rows = []
    for i in range(6):
        segments, tokens = 2 + i % 3, 40 * (2 + i % 3)
        counts = {"num_tokens": tokens, "drafted_tokens": tokens, "draft_tokens": tokens}
        seconds = {"draft_s": 0.001 * tokens, "verify_s": 0.0005 * tokens + 0.02 * segments}
        wall_s = sum(seconds.values())
        rows.append(make_row(str(i), wall_s=0.01 * tokens, num_tokens=tokens))
        own = make_row(str(i), "always", wall_s=wall_s, segments_accepted=segments, **counts, **seconds)
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
    assert 0.9 < summarize_rows(rows)["always"]["limit_share"] < 1.1
    optimized = [replace(own, method="never+token-speculation") for own in rows if own.method == "always"]
    assert "limit_share" in summarize_rows([*rows, *optimized])["never+token-speculation"]
