"""Builders for tests of the benchmark."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from semanticspec.errors import PromptError
from semanticspec.records import Result, Segment, Stats

MATH_ROWS = [
    {"id": "a", "problem": "What is 1/4 + 1/4?", "answer": "\\frac{1}{2}"},
    {"id": "b", "problem": "What is 6 * 7?", "answer": "42"},
    {"id": "c", "problem": "Name the point.", "answer": "\\left(3, \\frac{\\pi}{2}\\right)"},
]


CHOICE = {
    "id": "q",
    "problem": "Which?",
    "answer": "right",
    "options": ["wrong 1", "right", "wrong 2", "wrong 3"],
}


def write_rows(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@dataclass
class Fake:
    """Answers from a table; raises what is no text."""

    name: str
    answers: dict[str, str]
    lossy: bool = False

    async def solve(self, prompt: str, seed: int) -> Result:  # noqa: ARG002
        answer = self.answers.get(prompt)
        if answer is None:
            raise PromptError("too long")
        return Result(answer, (1,), (Segment("target", answer, 1),), Stats(num_tokens=1), "stop", False)
