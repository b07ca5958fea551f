"""Rows: what is written is read back, and broken lines are refused in one line."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from semanticspec.benchmark.rows import Row, measurements
from semanticspec.errors import BenchmarkError
from semanticspec.records import Result, Segment, Stats
from tests.support.benchmarks import make_row


def test_rows_survive_json():
    segments = (
        Segment("draft", "text", 4, 0.5, 0.25, True, "semantic"),
        Segment("target", "more", 2, proposals=((4, 2), (0, 0))),
    )
    result = Result("text\n</think>\nmore", (1,), segments, Stats(num_tokens=6, draft_tokens=4), "stop", True)
    result = replace(result, reasoning="text", answer="more")
    row = Row("t", "p", "m", 0, 1, "d", "g", "a", True, wall_s=1.5, **measurements(result))
    record = json.loads(json.dumps(row.to_json()))
    assert record["target_tokens"] == 2
    assert "text" not in record["segments"][0]
    without_text = tuple(replace(segment, text="") for segment in segments)
    assert Row.from_json(record) == replace(row, segments=without_text)
    assert row.answer_tokens == round(6 * 4 / len(result.text))


def test_text_without_thinking_does_not_count_as_an_answer_that_the_target_writes_itself():
    result = Result("just text", (1,), (), Stats(num_tokens=6), "stop", True, answer="just text")
    assert measurements(result)["answer_tokens"] == 0


def test_rows_of_versions_that_recorded_less_are_read():
    segment = {
        "author": "draft",
        "num_tokens": 4,
        "p_target": 0.5,
        "p_draft": 0.5,
        "accepted": True,
        "reason": "semantic",
    }
    record = make_row("p").to_json() | {"segments": [segment]}
    for name in ("block", "share_s", "note", "text", "started_at", "target_tokens"):
        del record[name]
    row = Row.from_json(record)
    assert (row.share_s, row.segments[0].proposals) == (0.0, ())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wall_s": "soon"}, "rows.jsonl, line 3: wall_s is 'soon'; expected a valid number"),
        ({"speed": 1}, "rows.jsonl, line 3: unknown key speed"),
        (
            {"segments": [{"author": "me", "num_tokens": 1}]},
            "segments.0.author is 'me'; expected 'draft' or 'target'",
        ),
        ({"segments": [{"author": "draft", "num_tokens": 1, "color": 1}]}, "unknown key segments.0.color"),
    ],
)
def test_a_broken_row_is_refused_in_one_line(changes, message):
    record = json.loads(json.dumps(make_row("p").to_json())) | changes
    with pytest.raises(BenchmarkError) as error:
        Row.from_json(record, "rows.jsonl, line 3")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_row_without_its_fields_is_refused():
    with pytest.raises(BenchmarkError, match="problem_id is missing"):
        Row.from_json({"task": "t"})
