"""The benchmark: tasks, grading, the runner and its rows."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from semanticspec.benchmark.charts import acceptance_by_position
from semanticspec.benchmark.grading import DemoGrader, VerifyGrader
from semanticspec.benchmark.methods import check_names, known_methods, make_method
from semanticspec.benchmark.rows import Row, figures_of
from semanticspec.benchmark.runner import Setting, run, schedule
from semanticspec.benchmark.tasks import (
    CHOICE_PROMPT,
    MATH_PROMPT,
    TASKS,
    BenchProblem,
    find_task,
    read_problems,
    read_task,
)
from semanticspec.config import DecodingConfig
from semanticspec.errors import BenchmarkError, ConfigError
from semanticspec.records import Result, Segment, Stats
from tests.support.benchmarks import CHOICE, MATH_ROWS, Fake, write_rows

# --- tasks -------------------------------------------------------------------------------------------------------


def test_settings_are_chosen_on_other_problems_than_they_are_measured_on() -> None:
    (test, test_pilot), (validation, pilot) = (
        read_task(TASKS[name], None, 150, 0) for name in ("demo", "demo-validation")
    )
    seen = [{problem.prompt for problem in problems} for problems in (test, validation, pilot)]
    assert [len(prompts) for prompts in seen[:2]] == [150, 150]
    assert not seen[0] & seen[1]
    assert not seen[1] & seen[2]
    assert test_pilot == pilot


@pytest.mark.parametrize("name", ["gsm8k", "math500", "aime24", "aime25", "amc23", "custom"])
def test_math_tasks_ask_for_a_box_and_take_the_first_problems(name, tmp_path):
    data = write_rows(tmp_path / "p.jsonl", MATH_ROWS)
    problems, pilot = read_task(find_task(name), data, 2, 0)
    assert [problem.problem_id for problem in problems] == ["a", "b"]
    assert [problem.problem_id for problem in pilot] == ["c"]
    assert problems[0].prompt.startswith("What is 1/4 + 1/4?\n\nPlease reason step by step")
    assert problems[0].prompt.endswith("\\boxed{}.")
    assert problems[0].gold == "\\frac{1}{2}"


def test_gsm8k_answers_stand_behind_the_mark(tmp_path):
    data = write_rows(tmp_path / "p.jsonl", [{"question": "How many?", "answer": "2 + 3 = 5\n#### 1,005"}])
    (problem,) = read_problems(find_task("gsm8k"), data, 0)
    assert (problem.problem_id, problem.gold) == ("1", "1,005")


def test_options_are_shuffled_by_the_seed_and_the_letter_goes_along(tmp_path):
    rows = [CHOICE | {"id": str(i)} for i in range(40)]
    hub = {"Question": "Which?", "Correct Answer": "right", "Record ID": "h"}
    rows.append(hub | {f"Incorrect Answer {i}": f"wrong {i}" for i in (1, 2, 3)})
    data = write_rows(tmp_path / "p.jsonl", rows)
    problems = read_problems(find_task("gpqa_diamond"), data, 0)
    for problem in problems:
        assert f"({problem.gold}) right" in problem.prompt
        assert '"answer": "C"' in problem.prompt
    assert {problem.gold for problem in problems} == {"A", "B", "C", "D"}
    assert read_problems(find_task("gpqa_diamond"), data, 0) == problems
    assert read_problems(find_task("gpqa_diamond"), data, 1) != problems


def test_prompts_are_those_of_the_model_cards():
    assert "Please reason step by step, and put your final answer within \\boxed{{}}." in MATH_PROMPT
    assert (
        'Please show your choice in the `answer` field with only the choice letter, e.g., `"answer": "C"`.'
        in (CHOICE_PROMPT)
    )


@pytest.mark.parametrize(
    ("rows", "task", "message"),
    [
        ([{"problem": "What?"}], "math500", "row 1: the field `answer` is missing; it has problem"),
        ([{"answer": "3"}], "aime24", "the field `problem` is missing"),
        ([{"problem": "What?", "answer": "  "}], "amc23", "`answer` is missing"),
        ([], "amc23", "holds no problems"),
        ([MATH_ROWS[0], MATH_ROWS[0]], "aime25", "two problems with the id 'a'"),
        ([{"problem": "Which?", "answer": "right"}], "gpqa_diamond", "expected 3 wrong options"),
    ],
)
def test_bad_data_is_told(rows, task, message, tmp_path):
    with pytest.raises(ConfigError, match=message.replace("(", "\\(")):
        read_task(find_task(task), write_rows(tmp_path / "p.jsonl", rows), None, 0)


def test_unknown_tasks_methods_and_sweeps():
    with pytest.raises(ConfigError, match="no task 'gsm9k'; choose from demo, demo-validation, gsm8k"):
        find_task("gsm9k")
    with pytest.raises(ConfigError, match="no method 'magic'; choose from target"):
        check_names(["target", "magic"])
    with pytest.raises(ConfigError, match="named twice"):
        check_names(["target", "target"])
    for name in ("target@2", "semantic@fast", "semantic@0", "semantic+magic", "target+overlap"):
        with pytest.raises(ConfigError, match=r"no method|no strictness"):
            check_names([name])
    check_names(["semantic", "semantic@2+partial-acceptance+token-speculation", "never+overlap"])
    with pytest.raises(ConfigError, match="--data"):
        read_task(find_task("custom"), None, None, 0)


# --- grading -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def math_grader():
    grader = VerifyGrader("math")
    yield grader
    grader.close()


@pytest.mark.parametrize(
    ("text", "gold", "right"),
    [
        ("<think>\n1/3?\n</think>\n\nSo \\boxed{0.5}.", "\\frac{1}{2}", True),
        ("So \\boxed{\\dfrac{2}{4}}", "\\frac{1}{2}", True),
        ("So \\boxed{\\frac{1}{3}}", "\\frac{1}{2}", False),
        ("<think>\\boxed{42}</think> No, \\boxed{43}.", "42", False),
        ("First \\boxed{41}. Wait, I mean \\boxed{42}.", "42", True),
        ("The roots are \\boxed{1} and \\boxed{2}.", "2,1", True),
        ("**Answer:** 42 pens", "42", True),
        ("\\boxed{(3,\\pi/2)}", "\\left( 3, \\frac{\\pi}{2} \\right)", True),
        ("\\boxed{1,000\\,}", "1000", True),
        ("", "42", False),
    ],
)
def test_answers_are_compared_by_their_value(math_grader, text, gold, right):
    assert math_grader.grade(text, gold, truncated=False).right is right


def test_an_output_cut_off_has_no_answer_unless_it_is_boxed(math_grader):
    assert not math_grader.grade("so far 42", "42", truncated=True).right
    assert math_grader.grade("so \\boxed{42}, which", "42", truncated=True).right


def test_an_answer_that_cannot_be_read_in_time_is_wrong_and_the_next_one_is_graded():
    grader = VerifyGrader("math", timeout_s=2.0)
    try:
        grade = grader.grade("\\boxed{((((99999!)!)!)!)}", "5", truncated=False)
        assert not grade.right
        assert "2 s" in grade.note
        assert grader.grade("\\boxed{5}", "5", truncated=False).right
    finally:
        grader.close()


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ('Thus: {"answer": "C"}', True),
        ('"answer": "B"', False),
        ("\\boxed{C}", True),
        ("\\boxed{\\text{(C)}}", True),
        ("The answer is **C**.", True),
        ("C? No: the answer is D.", False),
        ("", False),
    ],
)
def test_letters(letter_grader, text, right):
    assert letter_grader.grade(f"<think>A or B</think>{text}", "C", truncated=False).right is right


@pytest.fixture(scope="module")
def letter_grader():
    grader = VerifyGrader("letter")
    yield grader
    grader.close()


# --- runner ------------------------------------------------------------------------------------------------------


def test_methods_take_turns_problem_by_problem_and_sample_by_sample():
    problems = [BenchProblem(name, name, "1") for name in "pq"]
    methods = [Fake(name, {}) for name in ("one", "two", "three")]
    blocks = list(schedule(problems, methods, 2))
    order = [
        (problem.problem_id, sample, block.method.name) for block in blocks for problem, sample in block.cells
    ]
    assert order[:6] == [
        ("p", 0, "one"),
        ("p", 0, "two"),
        ("p", 0, "three"),
        ("p", 1, "two"),
        ("p", 1, "three"),
        ("p", 1, "one"),
    ]
    assert len(order) == 12
    assert order[6][2] == "three"


def test_a_failed_request_is_a_row_and_three_in_a_row_end_the_run(pair):
    problems = [BenchProblem(str(i), f"problem {i}", "1") for i in range(6)]
    good = Fake("good", {problem.prompt: "\\boxed{1}" for problem in problems})
    some = Fake("some", {problem.prompt: "\\boxed{2}" for problem in problems[::2]})
    setting = Setting("demo", pair, DemoGrader())
    rows = list(run(setting, problems, [good, some]))
    assert len(rows) == 12
    failed = [row for row in rows if row.failed]
    assert [row.problem_id for row in failed] == ["1", "3", "5"]
    assert failed[0].note == "PromptError: too long"
    assert all(row.right for row in rows if row.method == "good")
    assert not any(row.right for row in rows if row.method == "some")
    seeds = {(row.problem_id, row.seed) for row in rows}
    assert len(seeds) == 6
    none = Fake("none", {})
    kept: list[Row] = []
    with pytest.raises(BenchmarkError, match="none failed 3 times in a row, last: PromptError: too long"):
        kept.extend(run(setting, problems, [good, none]))
    assert len([row for row in kept if row.method == "none"]) == 3


def test_a_request_starts_with_empty_caches(pair):
    engine = pair.target.engine
    seen = []

    class Looks(Fake):
        async def solve(self, prompt: str, seed: int) -> Result:
            seen.append((len(engine._pool), len(pair.draft.engine._pool)))
            return await make_method("always", pair, DecodingConfig(max_new_tokens=8)).solve(prompt, seed)

    problems = [BenchProblem("p", "Mia has 14 pens. How many pens does Mia have?", "14")]
    list(run(Setting("demo", pair, DemoGrader()), problems, [Looks("a", {}), Looks("b", {})]))
    assert seen == [(0, 0), (0, 0)]
    assert len(engine._pool) > 0


async def test_the_draft_alone_goes_by_its_name(pair):
    config = DecodingConfig(max_new_tokens=20)
    method = make_method("draft", pair, config)
    result = await method.solve("Mia has 14 pens. How many pens does Mia have?", 0)
    assert method.lossy
    assert result.stats.draft_tokens == result.stats.num_tokens == 20
    assert result.stats.rewrite_s == 0 < result.stats.draft_s
    assert {segment.author for segment in result.segments} == {"draft"}


def test_every_own_method_can_be_made(pair):
    config = DecodingConfig()
    lossy = {name: make_method(name, pair, config).lossy for name in known_methods()[:9]}
    assert {name for name, is_lossy in lossy.items() if not is_lossy} == {"target", "token", "never"}
    assert make_method("semantic@2", pair, config).config.rule.strictness == 2
    assert make_method("random@2", pair, config).config.rule.name == "random"


def test_rows_survive_json():
    segments = (Segment("draft", "text", 4, 0.5, 0.25, True, "semantic"), Segment("target", "more", 2))
    result = Result("text\n</think>\nmore", (1,), segments, Stats(num_tokens=6, draft_tokens=4), "stop", True)
    result = replace(result, answer="more")
    row = Row("t", "p", "m", 0, 1, "d", "g", "a", True, wall_s=1.5, **figures_of(result))
    record = json.loads(json.dumps(row.to_json()))
    assert record["target_tokens"] == 2
    assert "text" not in record["segments"][0]
    without_text = tuple(replace(segment, text="") for segment in segments)
    assert Row.from_json(record) == replace(row, segments=without_text)
    assert row.answer_tokens == round(6 * 4 / len(result.text))
    with pytest.raises(BenchmarkError, match="broken"):
        Row.from_json({"task": "t"})


def test_acceptance_by_position_leaves_rejected_text_out():
    segments = (
        Segment("draft", "", 50, accepted=True),
        Segment("draft", "", 90, accepted=False),
        Segment("target", "", 50),
    )
    row = Row("t", "p", "m", 0, 1, "", "", "", True, "stop", 1.0, num_tokens=100, segments=segments)
    bins = acceptance_by_position([row])
    assert [(kept, tried) for _, kept, tried in bins if tried] == [(1, 1), (0, 1)]
    assert bins[5][1:] == (0, 1)
