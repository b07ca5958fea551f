"""Where the problems to collect on come from: the bundled demo's grammar, or a JSONL file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from semanticspec.errors import ConfigError

DEMO_PROBLEMS = "demo"
PROMPT_FIELDS = ("prompt", "problem", "question")


class ProblemText(NamedTuple):
    """A problem to collect on: its id decides its split, so keep it stable.

    `trace` is a reasoning that somebody wrote; where there is one, the target does not write its own.
    """

    problem_id: str
    prompt: str
    trace: str = ""


def read_problems(source: str, count: int | None = None, trace_field: str | None = None) -> list[ProblemText]:
    """Problems of a JSONL file (`prompt`, `problem` or `question`, and an `id` if there is one), or the
    demo's.

    The demo's come from its training and validation splits, never from the test problems.

    Args:
        count: the first so many only.
        trace_field: name of the field that holds a given reasoning.

    Raises:
        ConfigError: the file cannot be read, or a line is no problem or lacks the trace.
    """
    if source == DEMO_PROBLEMS:
        if trace_field:
            raise ConfigError("the demo's problems have no traces; leave --traces out")
        return demo_problems(count or 100)
    try:
        lines = Path(source).read_text().splitlines()
    except OSError as error:
        raise ConfigError(f"no problems can be read from {source!r}: {error.strerror}") from error
    found: list[ProblemText] = []
    for number, line in enumerate(filter(str.strip, lines), start=1):
        if count is not None and len(found) == count:
            break
        try:
            entry = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{source}, line {number}: not JSON ({error})") from error
        found.append(_problem(entry, f"{source}, line {number}", str(number), trace_field))
    if not found:
        raise ConfigError(f"{source} holds no problems")
    return found


def demo_problems(count: int) -> list[ProblemText]:
    """Problems of the demo, nine in ten of its training split, the others of its validation split."""
    from semanticspec.demo.grammar import problems

    from_validation = count // 10
    chosen = [
        *problems("train", count - from_validation, seed=1),
        *problems("validation", from_validation, seed=1),
    ]
    return [ProblemText(problem.text, problem.text) for problem in chosen]


def _problem(entry: Any, where: str, default_id: str, trace_field: str | None) -> ProblemText:
    """One problem of a mapping of fields.

    Raises:
        ConfigError: there is no prompt in it, or not the trace that was asked for.
    """
    fields: Mapping[str, Any] = entry if isinstance(entry, Mapping) else {}
    prompt = next((fields[name] for name in PROMPT_FIELDS if fields.get(name)), None)
    if prompt is None:
        listed = ", ".join(map(str, fields)) or "none"
        raise ConfigError(f"{where}: expected one of the fields {', '.join(PROMPT_FIELDS)}; it has {listed}")
    trace = fields.get(trace_field) if trace_field else ""
    if trace_field and not (isinstance(trace, str) and trace.strip()):
        raise ConfigError(f"{where}: the field {trace_field!r} with the trace is missing or empty")
    return ProblemText(str(fields.get("id", default_id)), str(prompt), str(trace))
