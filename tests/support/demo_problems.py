"""Files of demo problems for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from semanticspec.training.data.examples import split_of


def write_problems(path: Path) -> None:
    """Six of the demo's problems under ids that give every split some."""
    problems = [problem.text for problem in demo_grammar_problems(6)]
    wanted = ["train", "train", "train", "validation", "test", "test"]
    names = iter(range(1000))
    ids = [next(f"p{n}" for n in names if split_of(f"p{n}") == split) for split in wanted]
    lines = (json.dumps({"id": name, "prompt": text}) for name, text in zip(ids, problems, strict=True))
    path.write_text("\n".join(lines))


def demo_grammar_problems(count: int) -> list[Any]:
    from semanticspec.demo.grammar import problems

    return problems("train", count, seed=5)
