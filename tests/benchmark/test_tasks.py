"""Tasks: problems, prompts and the registry."""

from __future__ import annotations

import pytest

from semanticspec.benchmark import tasks
from semanticspec.benchmark.tasks import (
    CHOICE_PROMPT,
    MATH_PROMPT,
    TASKS,
    BenchProblem,
    Task,
    TaskProblems,
    find_task,
    register_task,
)
from semanticspec.commands.demo_registration import DemoGrader
from semanticspec.errors import ConfigError
from tests.support.benchmarks import CHOICE, MATH_ROWS, write_rows


def test_settings_are_chosen_on_other_problems_than_they_are_measured_on() -> None:
    (test, test_pilot), (validation, pilot) = (
        find_task(name).read(None, 150, 0) for name in ("demo", "demo-validation")
    )
    seen = [{problem.prompt for problem in problems} for problems in (test, validation, pilot)]
    assert [len(prompts) for prompts in seen[:2]] == [150, 150]
    assert not seen[0] & seen[1]
    assert not seen[1] & seen[2]
    assert test_pilot == pilot


@pytest.mark.parametrize("name", ["gsm8k", "math500", "aime24", "aime25", "amc23", "custom"])
def test_math_tasks_ask_for_a_box_and_take_the_first_problems(name, tmp_path):
    data = write_rows(tmp_path / "p.jsonl", MATH_ROWS)
    problems, pilot = find_task(name).read(data, 2, 0)
    assert [problem.problem_id for problem in problems] == ["a", "b"]
    assert [problem.problem_id for problem in pilot] == ["c"]
    assert problems[0].prompt.startswith("What is 1/4 + 1/4?\n\nPlease reason step by step")
    assert problems[0].prompt.endswith("\\boxed{}.")
    assert problems[0].gold == "\\frac{1}{2}"


def test_gsm8k_answers_follow_the_mark(tmp_path):
    data = write_rows(tmp_path / "p.jsonl", [{"question": "How many?", "answer": "2 + 3 = 5\n#### 1,005"}])
    (problem,) = find_task("gsm8k").read_all(data, 0)
    assert (problem.problem_id, problem.gold) == ("1", "1,005")


def test_options_are_shuffled_by_the_seed_and_the_letter_goes_along(tmp_path):
    rows = [CHOICE | {"id": str(i)} for i in range(40)]
    hub = {"Question": "Which?", "Correct Answer": "right", "Record ID": "h"}
    rows.append(hub | {f"Incorrect Answer {i}": f"wrong {i}" for i in (1, 2, 3)})
    data = write_rows(tmp_path / "p.jsonl", rows)
    problems = find_task("gpqa_diamond").read_all(data, 0)
    for problem in problems:
        assert f"({problem.gold}) right" in problem.prompt
        assert '"answer": "C"' in problem.prompt
    assert {problem.gold for problem in problems} == {"A", "B", "C", "D"}
    assert find_task("gpqa_diamond").read_all(data, 0) == problems
    assert find_task("gpqa_diamond").read_all(data, 1) != problems


def test_prompts_are_those_of_the_model_cards():
    assert "Please reason step by step, and put your final answer within \\boxed{{}}." in MATH_PROMPT
    assert (
        'Please show your choice in the `answer` field with only the choice letter, e.g., `"answer": "C"`.'
        in (CHOICE_PROMPT)
    )


@pytest.mark.parametrize(
    ("rows", "task", "message"),
    [
        (
            [{"problem": "What?"}],
            "math500",
            "row 1: the field `answer` is missing or empty; the row has problem",
        ),
        ([{"answer": "3"}], "aime24", "the field `problem` is missing"),
        ([{"problem": "What?", "answer": "  "}], "amc23", "`answer` is missing or empty"),
        ([], "amc23", "holds no problems"),
        ([MATH_ROWS[0], MATH_ROWS[0]], "aime25", "two problems with the id 'a'"),
        ([{"problem": "Which?", "answer": "right"}], "gpqa_diamond", "expected 3 wrong options"),
    ],
)
def test_bad_data_is_refused(rows, task, message, tmp_path):
    with pytest.raises(ConfigError, match=message.replace("(", "\\(")):
        find_task(task).read(write_rows(tmp_path / "p.jsonl", rows), None, 0)


def test_unknown_tasks_and_missing_data_are_refused():
    with pytest.raises(ConfigError, match=r"no task 'gsm9k'; choose from .*gsm8k.*, demo, demo-validation"):
        find_task("gsm9k")
    with pytest.raises(ConfigError, match="needs --data"):
        find_task("custom").read(None, None, 0)


def test_a_generated_task_reads_no_data(tmp_path):
    data = write_rows(tmp_path / "p.jsonl", MATH_ROWS)
    for read in (
        lambda: find_task("demo").read(data, None, 0),
        lambda: find_task("demo").read_all(data, 0),
    ):
        with pytest.raises(ConfigError, match="generates its own problems"):
            read()


def test_a_task_is_added_by_registering_it(monkeypatch):
    monkeypatch.setattr(tasks, "TASKS", dict(TASKS))
    problem = BenchProblem("p", "How many?", "3")
    register_task(
        Task(
            "mine",
            make_grader=DemoGrader,
            generate=lambda count: TaskProblems([problem] * (count or 2), []),
            generated_by="me",
        )
    )
    task = find_task("mine")
    task.check_grader()
    assert task.read(None, None, 0).compared == [problem, problem]
    assert task.data_name(None) == "me"
    assert task.start_grader().grade("\\boxed{3}", problem.gold, truncated=False).right
