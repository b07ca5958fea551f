"""Columns of a comparison: what is shown where."""

from __future__ import annotations

from dataclasses import replace

from semanticspec.benchmark.summary import Comparison, summarize
from semanticspec.benchmark.tables import (
    COLUMNS,
    THROUGHPUT,
    cells,
    filled_columns,
    markdown_comparison,
    markdown_throughput,
)
from tests.support.benchmarks import make_row


def figures(*methods: str, problems: int = 8) -> dict:
    rows = [make_row(str(i), method) for method in methods for i in range(problems)]
    changed = [row if row.method == "target" else replace(row, wall_s=1.0) for row in rows]
    return summarize(Comparison(changed))


def test_figures_have_their_intervals():
    row = dict(zip(COLUMNS, cells(COLUMNS, figures("target", "semantic"))["semantic"], strict=True))
    assert row["speed-up"] == "2.00"  # all problems alike: no interval
    assert row["accuracy, %"] == "100.0 [67.6, 100.0]"
    assert row["vs target, pp"] == "+0.0 [-27.7, +27.7]"
    assert row["s/request"] == "1.000"
    assert row["accepted"] == ""


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
