"""Where the problems to collect on come from: the bundled demo's grammar, a JSONL file, or the hub."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
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


def read_problems(
    source: str, count: int | None = None, trace_field: str | None = None, config: str | None = None
) -> list[ProblemText]:
    """Problems by where they are: `demo`, a JSONL file, or a data set on the hub, `org/name` or `org/name:split`.

    A problem has one of the fields `prompt`, `problem` and `question`, and an `id` if there is one (else its
    number is its id). The demo's come from its training and validation splits, never from the test problems.

    Args:
        count: the first so many only.
        trace_field: name of the field that holds a given reasoning.
        config: of a data set on the hub that has several.

    Raises:
        ConfigError: the source cannot be read or is empty, or a row is no problem or lacks the trace.
    """
    from semanticspec.training.data.hub_problems import hub_name, hub_rows

    if source == DEMO_PROBLEMS:
        if trace_field:
            raise ConfigError("the demo's problems have no traces; leave --traces out")
        return demo_problems(count or 100)
    name = hub_name(source, config)
    if config and name is None:
        raise ConfigError(f"{source!r} is no data set on the hub, so it has no --config; leave it out")
    rows = hub_rows(name) if name else read_jsonl(source)
    what = "row" if name else "line"
    found = [
        _problem(row, f"{source}, {what} {number}", str(number), trace_field)
        for number, row in enumerate(islice(rows, count), start=1)
    ]
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


def read_jsonl(path: str) -> Iterator[Any]:
    """The objects of a JSONL file; blank lines are left out.

    Raises:
        ConfigError: there is no such file, or a line is no JSON.
    """
    try:
        lines = Path(path).read_text().splitlines()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no text in UTF-8 ({error.reason}); expected JSONL") from error
    except OSError as error:
        raise ConfigError(
            f"no problems can be read from {path!r}: {error.strerror}; expected demo, a JSONL file, or the name of "
            "a data set on the hub, such as openai/gsm8k:train"
        ) from error
    for number, line in enumerate(filter(str.strip, lines), start=1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{path}, line {number}: not JSON ({error})") from error


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
