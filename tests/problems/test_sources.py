"""Reads problem files; the demo as a source."""

from __future__ import annotations

from pathlib import Path

import pytest

from semanticspec.errors import ConfigError
from semanticspec.problems.sources import MATH_PROMPT, read_problems


def test_problem_files(tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text('{"id": 7, "problem": "one"}\n\n{"question": "two"}\n')
    assert read_problems(str(path)) == [("7", "one", "", ""), ("2", "two", "", "")]
    assert read_problems(str(path), 1) == [("7", "one", "", "")]
    path.write_text('{"text": 1}\n')
    with pytest.raises(ConfigError, match="line 1"):
        read_problems(str(path))
    with pytest.raises(ConfigError, match="cannot read problems from"):
        read_problems(str(tmp_path / "none"))


def test_characters_that_end_a_line_elsewhere_are_part_of_a_json_string(tmp_path: Path) -> None:
    """`splitlines` also splits at U+2028, which JSON strings may hold: GSM8K's training split has one."""
    path = tmp_path / "problems.jsonl"
    path.write_text('{"problem": "one\u2028two\x85three"}\r\n{"problem": "four"}\n', encoding="utf-8")
    assert [problem.prompt for problem in read_problems(str(path))] == ["one\u2028two\x85three", "four"]


def test_demo_problems_leave_the_test_split_alone() -> None:
    from semanticspec.demo.grammar import split_of as demo_split_of

    assert {demo_split_of(problem.prompt) for problem in read_problems("demo", 30)} == {"train", "validation"}


def test_traces_of_problem_files(tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text('{"id": "x", "problem": "one", "solution": "a\\n\\nb"}\n{"id": "y", "problem": "two"}\n')
    assert read_problems(str(path), 1, "solution") == [("x", "one", "a\n\nb", "")]
    assert read_problems(str(path)) == [("x", "one", "", ""), ("y", "two", "", "")]
    with pytest.raises(ConfigError, match="line 2: the field 'solution'"):
        read_problems(str(path), trace_field="solution")
    path.write_text("{\n")
    with pytest.raises(ConfigError, match="line 1: not valid JSON"):
        read_problems(str(path))
    with pytest.raises(ConfigError, match="problems of 'demo' have no traces"):
        read_problems("demo", trace_field="solution")


def test_the_right_answer_is_read_where_there_is_one(tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text(
        '{"problem": "one", "answer": 7}\n{"problem": "two", "answer": "4 + 4 = 8\\n#### 8"}\n{"problem": "three"}\n'
    )
    assert [problem.gold for problem in read_problems(str(path))] == ["7", "8", ""]


def test_a_template_is_put_around_each_problem(tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text('{"problem": "one {x}"}\n')
    assert read_problems(str(path), template="math")[0].prompt == MATH_PROMPT.format(problem="one {x}")
    assert read_problems(str(path), template="Solve: {problem}")[0].prompt == "Solve: one {x}"
    for wrong in ("Solve it.", "{other} {problem}", "{problem"):
        with pytest.raises(ConfigError, match="the prompt template is"):
            read_problems(str(path), template=wrong)
