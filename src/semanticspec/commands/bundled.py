"""Registers what the bundled demo adds to the library, so that the library itself does not import the demo."""

from __future__ import annotations

from pathlib import Path

from semanticspec.training.data.problems import DEMO_PROBLEMS, ProblemText, register_problem_source
from semanticspec.training.labels.judges import Judge, JudgeConfig, register_judge


def register_bundled() -> None:
    """Registers the demo's judge `exact` and its problem source `demo`; calling it again changes nothing."""
    register_judge("exact", _exact_judge)
    register_problem_source(DEMO_PROBLEMS, _demo_problems)


def _exact_judge(config: JudgeConfig, folder: Path | None) -> Judge:  # noqa: ARG001
    from semanticspec.demo.judge import ExactJudge

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
    return [ProblemText(problem.text, problem.text) for problem in chosen]
