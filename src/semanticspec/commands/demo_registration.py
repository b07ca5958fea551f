"""Registers what the bundled demo adds to the library, so that the library itself does not import the demo."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from semanticspec.benchmark.grading_worker import Grade
from semanticspec.benchmark.tasks import (
    PILOT_PROBLEMS,
    BenchProblem,
    Task,
    TaskProblems,
    register_task,
)
from semanticspec.demo.problems import demo_problems
from semanticspec.problems.sources import DEMO_PROBLEMS, ProblemText, register_problem_source
from semanticspec.training.labels.judges import Judge, JudgeConfig, register_judge

DEMO_TASKS = {"demo": "test", "demo-validation": "validation"}
"""Benchmark tasks of the demo, and the split that their problems come from."""


def register_demo() -> None:
    """Registers the demo's judge, problem source and benchmark tasks; calling it again changes nothing."""
    register_judge("exact", _exact_judge)
    register_problem_source(DEMO_PROBLEMS, _demo_problems)
    for name, split in DEMO_TASKS.items():
        generate = partial(_task_problems, split)
        register_task(Task(name, make_grader=DemoGrader, generate=generate, generated_by="grammar"))


class DemoGrader:
    """Grades by the integer in the last box, as the demo's grammar writes it."""

    def grade(self, text: str, gold: str, *, truncated: bool) -> Grade:  # noqa: ARG002
        """See `Grader.grade`."""
        from semanticspec.demo.grammar import answer_of

        answer = answer_of(text)
        return Grade("" if answer is None else str(answer), answer == int(gold))

    def close(self) -> None:
        """Does nothing; see `Grader`."""


def demo_task_problems(split: str, count: int, seed: int = 0) -> list[BenchProblem]:
    """Returns problems of the demo as benchmark problems, see `demo_problems`."""
    return [BenchProblem(*problem) for problem in demo_problems(split, count, seed)]


def _task_problems(split: str, count: int | None) -> TaskProblems:
    """Returns problems of a split, 100 by default, and others for the pilot."""
    pilot = demo_task_problems("validation", PILOT_PROBLEMS, seed=1)
    return TaskProblems(demo_task_problems(split, count or 100), pilot)


def _exact_judge(config: JudgeConfig, folder: Path | None) -> Judge:  # noqa: ARG001
    from semanticspec.demo.exact_judge import ExactJudge

    return ExactJudge()


def _demo_problems(count: int | None) -> list[ProblemText]:
    """Returns 100 problems by default: 90 % of the training split, 10 % of the validation split."""
    from semanticspec.demo.grammar import problems

    num_problems = count or 100
    num_validation = num_problems // 10
    chosen = [
        *problems("train", num_problems - num_validation, seed=1),
        *problems("validation", num_validation, seed=1),
    ]
    return [ProblemText(problem.text, problem.text, gold=str(problem.answer)) for problem in chosen]
