"""The demo's grammar: whatever it writes, it reads back exactly, and its arithmetic is right."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace

import pytest

from semanticspec.demo.grammar import (
    Meaning,
    Problem,
    StyleName,
    answer_of,
    make_problem,
    problems,
    read_problem,
    read_step,
    same_meaning,
    split_of,
    write_step,
    write_trace,
)
from semanticspec.demo.stories import SPLIT_BUCKETS
from semanticspec.demo.wordings import CORRECTION_OPENINGS, STEP_WORDINGS, STYLE_WEIGHTS

MIA = "Mia has 14 pens. Mia buys 23 more. Then Mia doubles the pens. How many pens does Mia have?"
STYLES: tuple[StyleName, ...] = ("target", "draft")


@pytest.fixture(scope="module")
def sample() -> list[Problem]:
    rng = random.Random(7)
    return [make_problem(rng) for _ in range(1500)]


def _steps_of(solution: str) -> list[str]:
    return solution.partition("</think>")[0].split("\n\n")


def test_every_wording_is_read_back(sample: list[Problem]) -> None:
    seen: set[tuple[str, int]] = set()
    for problem in sample:
        for meaning, verb in zip(problem.steps, problem.verbs, strict=True):
            for wording in range(len(STEP_WORDINGS[meaning.operation])):
                text = write_step(meaning, verb, wording)
                assert read_step(text) == meaning, text
                seen.add((meaning.operation, wording))
    assert seen == {
        (kind, number) for kind, wordings in STEP_WORDINGS.items() for number in range(len(wordings))
    }


def test_every_wording_is_read_back_as_a_correction(sample: list[Problem]) -> None:
    for problem in sample[:200]:
        for meaning, verb in zip(problem.steps, problem.verbs, strict=True):
            for opening in CORRECTION_OPENINGS:
                text = f"{opening} {write_step(meaning, verb, 2)}"
                assert read_step(text) == replace(meaning, corrects=True)


def test_steps_compute_what_python_computes(sample: list[Problem]) -> None:
    for problem in sample:
        assert all(step.result == step.expected_result() for step in problem.steps)
        assert problem.answer == problem.steps[-1].result


def test_bounds_hold(sample: list[Problem]) -> None:
    for problem in sample:
        assert 2 <= len(problem.steps) <= 8
        assert all(0 <= number <= 999 for step in problem.steps for number in (*step.operands, step.result))
    assert {len(problem.steps) for problem in sample} == set(range(2, 8))  # one more where a solution closes


def test_problem_texts_are_read_back(sample: list[Problem]) -> None:
    for problem in sample:
        assert read_problem(problem.text) == problem


def test_a_solution_says_the_steps_of_its_problem(sample: list[Problem]) -> None:
    rng = random.Random(1)
    for problem in sample:
        for style in STYLES:
            solution = "".join(piece.text for piece in write_trace(problem, style, rng, slip_share=0.0))
            said = [read_step(step) for step in _steps_of(solution)]
            assert tuple(said[: len(problem.steps)]) == problem.steps
            assert 2 <= len(said) <= 8
            for closing in said[len(problem.steps) :]:
                assert closing is not None
                assert (closing.operation, closing.result) == ("final", problem.answer)
            assert answer_of(solution) == problem.answer
            assert "Wait" not in solution


def test_a_slip_is_masked_and_then_corrected(sample: list[Problem]) -> None:
    rng = random.Random(2)
    for problem in sample:
        pieces = write_trace(problem, "target", rng, slip_share=1.0)
        masked = [number for number, piece in enumerate(pieces) if not piece.learn]
        assert len(masked) == 1
        slip = pieces[masked[0] - 1].text + pieces[masked[0]].text
        told = read_step(slip)
        assert slip.endswith("\n\n")
        correction = read_step(pieces[masked[0] + 1].text)
        assert correction is not None
        assert correction.corrects
        right = replace(correction, corrects=False)
        assert told != right  # wrong, or at odds with itself and so not read at all
        assert right in problem.steps or (right.operation, right.result) == ("final", problem.answer)


def test_styles_prefer_different_wordings_but_share_all() -> None:
    target, draft = (
        [weight / sum(STYLE_WEIGHTS[style]) for weight in STYLE_WEIGHTS[style]] for style in STYLES
    )
    assert min(*target, *draft) >= 0.01
    assert sum(abs(one - two) for one, two in zip(target, draft, strict=True)) / 2 > 0.4
    assert all(len(wordings) >= 6 for wordings in STEP_WORDINGS.values())


def test_splits_share_no_problem() -> None:
    buckets = [set(buckets) for buckets in SPLIT_BUCKETS.values()]
    assert set.union(*buckets) == set(range(20))
    assert sum(map(len, buckets)) == 20
    texts = {split: {problem.text for problem in problems(split, 400)} for split in SPLIT_BUCKETS}
    for split, members in texts.items():
        assert len(members) == 400
        assert {split_of(text) for text in members} == {split}
    assert len(set.union(*texts.values())) == 1200


def test_problems_repeat_with_the_seed() -> None:
    assert problems("test", 20, seed=3) == problems("test", 20, seed=3)
    assert problems("test", 20, seed=3) != problems("test", 20, seed=4)


def test_the_example_of_the_playground_is_read() -> None:
    problem = read_problem(MIA)
    assert problem is not None
    assert problem.answer == 74
    assert [step.result for step in problem.steps] == [14, 37, 74]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "What is the capital of France?",
        "Mia has 14 pens. Mia paints 23 more. How many pens does Mia have?",
        "Mia has 14 pens. Tom buys 23 more pens. How many pens does Mia have?",
        "Mia has 14 pens. Mia loses 20 pens. How many pens does Mia have?",
        "Mia has 15 pens. Mia loses half of the pens. How many pens does Mia have?",
        "Mia has 14 pens. Mia buys 23 more. How many books does Mia have?",
        "Mia has 14 pens. Mia buys 23 more.",
    ],
)
def test_other_prompts_are_not_read(text: str) -> None:
    assert read_problem(text) is None


def test_wrong_arithmetic_is_read_as_stated() -> None:
    step = read_step("Mia buys 23 more pens, so Mia now has 14 + 23 = 38 pens.\n\n")
    assert step == Meaning("gain", (14, 23), 38, "Mia", "pens")
    assert step.expected_result() == 37


@pytest.mark.parametrize(
    "text",
    [
        "Mia buys 23 more pens, so Mia now has 14 + 24 = 38 pens.",
        "Mia buys 23 more pens, so Tom now has 14 + 23 = 37 pens.",
        "Mia buys 23 more pens, so Mia now has 14 + 23 = 37 books.",
        "I do not know.",
    ],
)
def test_steps_without_one_meaning_are_not_read(text: str) -> None:
    assert read_step(text) is None


def test_same_meaning() -> None:
    one = read_step("Mia starts with 14 pens.\n\n")
    other = read_step("<think>\nAt the start, Mia has 14 pens.\n</think>")
    assert same_meaning(one, other)
    assert not same_meaning(one, read_step("Mia starts with 15 pens."))
    assert not same_meaning(None, None)


def test_answer_of() -> None:
    assert answer_of("\\boxed{3} and then \\boxed{74}.") == 74
    assert answer_of("The answer is 74.") is None


def test_importing_the_demo_loads_no_torch() -> None:
    code = "import sys, semanticspec.demo, semanticspec.demo.grammar; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
