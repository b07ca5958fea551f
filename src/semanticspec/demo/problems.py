"""Word problems of the demo with their answers."""

from __future__ import annotations

from typing import NamedTuple, cast

from semanticspec.demo.stories import Split, problems


class DemoProblem(NamedTuple):
    """A word problem. `answer` is the integer as text."""

    problem_id: str
    prompt: str
    answer: str


def demo_problems(split: str, count: int, seed: int = 0) -> list[DemoProblem]:
    """Generates problems of a split.

    Args:
        split: `train`, `validation` or `test`. The bundled models were trained on `train` only.
        seed: other seeds give other problems.
    """
    generated = problems(cast(Split, split), count, seed)
    return [DemoProblem(f"{split}-{seed}-{i}", p.text, str(p.answer)) for i, p in enumerate(generated)]
