"""Grading by math-verify in a process of its own."""

from __future__ import annotations

import pytest

from semanticspec.benchmark.grading import MathVerifyGrader


@pytest.fixture(scope="module")
def math_grader():
    grader = MathVerifyGrader("math")
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
    grader = MathVerifyGrader("math", timeout_s=2.0)
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
    grader = MathVerifyGrader("letter")
    yield grader
    grader.close()
