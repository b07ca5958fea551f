"""Columns of a comparison: what is shown where."""

from __future__ import annotations

from dataclasses import replace

import pytest

from semanticspec.benchmark.summary import Comparison, summarize
from semanticspec.benchmark.tables import (
    COLUMNS,
    MIN_PROBLEMS,
    THROUGHPUT,
    cells,
    comparison_table,
    filled_columns,
    markdown_comparison,
    markdown_throughput,
    truncated_notes,
)
from tests.support.benchmarks import make_row


def figures(*methods: str, problems: int = 8) -> dict:
    rows = [make_row(str(i), method) for method in methods for i in range(problems)]
    changed = [row if row.method == "target" else replace(row, wall_s=1.0) for row in rows]
    return summarize(Comparison(changed))


def test_figures_have_their_intervals():
    row = dict(zip(COLUMNS, cells(COLUMNS, figures("target", "semantic"))["semantic"], strict=True))
    assert row["speed-up, s/request"] == "2.00"  # all problems alike: no interval
    assert row["accuracy, %"] == "100.0 [67.6, 100.0]"
    assert row["vs target, pp"] == "+0.0 [-27.7, +27.7]"
    assert row["s/request"] == "1.000"
    assert row["accepted"] == ""


@pytest.mark.parametrize("problems", [1, MIN_PROBLEMS - 1])
def test_few_problems_have_no_intervals(problems):
    """With one problem, that of a difference of accuracies would be [-92, +92] points."""
    own = figures("target", "semantic", problems=problems)
    assert not any("[" in cell for row in cells(COLUMNS, own).values() for cell in row)
    assert "no intervals below 5 problems" in comparison_table(own, "title").caption
    assert "95 % intervals" in comparison_table(figures("target", problems=MIN_PROBLEMS), "title").caption


def test_a_shorter_output_is_no_faster_by_seconds_a_token():
    rows = [make_row(str(i), "target", wall_s=2.0 + i, num_tokens=100 + 50 * i) for i in range(6)]
    rows += [
        replace(row, method="semantic", wall_s=row.wall_s / 2, num_tokens=row.num_tokens // 2) for row in rows
    ]
    own = summarize(Comparison(rows))["semantic"]
    assert (own["speedup"], own["speedup_per_token"], own["length_ratio"]) == (2.0, 1.0, 0.5)
    assert own["speedup_per_token_ci95"] == pytest.approx((1.0, 1.0))
    row = dict(zip(COLUMNS, cells(COLUMNS, {"semantic": own})["semantic"], strict=True))
    assert (row["speed-up, s/request"], row["speed-up, s/token"]) == ("2.00", "1")


def test_summaries_of_earlier_versions_have_both_speed_ups():
    own = {k: v for k, v in figures("target", "semantic")["semantic"].items() if "per_token" not in k}
    own |= {"length_ratio": 0.8, "speedup": 2.0, "seconds_per_token": 0.01}
    row = dict(zip(COLUMNS, cells(COLUMNS, {"semantic": own})["semantic"], strict=True))
    assert row["speed-up, s/token"] == "1.60"


def test_outputs_that_were_cut_off_are_counted_and_named():
    rows = [make_row(str(i), "target", finish_reason="length" if i < 7 else "stop") for i in range(9)]
    own = summarize(Comparison(rows))
    assert own["target"]["truncated_problems"] == [str(i) for i in range(7)]
    assert truncated_notes(own) == ["target: 7 of 9 outputs cut off (0, 1, 2, 3, 4, ...)"]
    assert "target: 7 of 9 outputs cut off" in comparison_table(own, "title").caption
    del own["target"]["truncated_problems"]  # as in summaries of earlier versions
    assert truncated_notes(own) == ["target: 7 of 9 outputs cut off"]


def test_columns_without_figures_are_left_out_and_the_control_brings_its_own():
    assert "accepted" not in filled_columns(figures("target", "semantic"))
    assert "vs target, pp" not in filled_columns(figures("semantic"))
    assert "vs semantic, pp" not in filled_columns(figures("target", "semantic"))
    assert "vs semantic, pp" in filled_columns(figures("target", "semantic", "random"))


def test_markdown_says_which_methods_are_lossy():
    described = {"target": {"lossy": False}, "semantic": {"lossy": True}, "never": {"lossy": False}}
    table = markdown_comparison(figures("target", "semantic", "never", "unknown"), described).splitlines()
    assert [line.split(" | ")[:2] for line in table[2:]] == [
        ["| `target`", ""],
        ["| `semantic`", "lossy"],
        ["| `never`", "lossless"],
        ["| `unknown`", ""],
    ]


def test_throughput_of_requests_one_at_a_time_is_compared_by_speed_up():
    rows = [
        make_row(str(i), method, wall_s=wall_s + i, share_s=wall_s + i, block=i)
        for i in range(4)
        for method, wall_s in (("target", 4.0), ("semantic", 1.0))
    ]
    table = markdown_throughput({1: summarize(Comparison(rows))}).splitlines()
    place = 2 + list(THROUGHPUT).index("throughput vs target")
    assert [line.split(" | ")[place].split(" ")[0] for line in table[2:]] == ["1", "2.20"]
