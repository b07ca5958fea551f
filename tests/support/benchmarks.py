"""Builders for tests of the benchmark."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semanticspec.benchmark.folder import BenchFolder
from semanticspec.benchmark.rows import Row
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
    """A method that answers from a table, and fails where the table has no answer."""

    name: str
    answers: dict[str, str]
    lossy: bool = False

    async def solve(self, prompt: str, seed: int) -> Result:  # noqa: ARG002
        answer = self.answers.get(prompt)
        if answer is None:
            raise PromptError("too long")
        return Result(answer, (1,), (Segment("target", answer, 1),), Stats(num_tokens=1), "stop", False)


def make_row(problem_id: str, method: str = "target", **changes: Any) -> Row:
    """A right answer in 100 tokens and two seconds."""
    usual = {
        "task": "t",
        "sample": 0,
        "seed": 0,
        "digest": "",
        "gold": "1",
        "answer": "1",
        "right": True,
        "finish_reason": "stop",
        "wall_s": 2.0,
        "num_tokens": 100,
    }
    return Row(problem_id=problem_id, method=method, **usual | changes)


def make_folder(path: Path, rows: Sequence[Row], seed: int = 0) -> BenchFolder:
    """A folder with the configuration of a small run and these rows."""
    run = {
        "format": 1,
        "task": "t",
        "data": "grammar",
        "pair_name": "bundled",
        "seed": seed,
        "options_seed": None,
        "engines": {"target": "transformers", "draft": "transformers"},
        "dtype": "auto",
        "device": "auto",
        "decoding": {},
    }
    path.mkdir(exist_ok=True)
    folder = BenchFolder(path)
    for row in rows:
        folder.append(row)
    methods = {row.method: {"lossy": row.method != "target"} for row in rows} or {"target": {"lossy": False}}
    folder.save_config(run, methods, problems=len(rows), samples=1, pilots={}, command="semanticspec bench")
    return folder
