"""Reads problems: from a registered source, a JSONL file, or the Hugging Face hub.

To add a source, register a function under the name that `--problems` takes:
`register_problem_source("my-problems", make_my_problems)`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from semanticspec.errors import ConfigError

DEMO_PROBLEMS = "demo"
"""The source of the bundled demo's problems, registered by `semanticspec.commands.demo_registration`."""
PROMPT_FIELDS = ("prompt", "problem", "question")
MATH_PROMPT = "{problem}\n\nPlease reason step by step, and put your final answer within \\boxed{{}}."
"""Source: the model cards of DeepSeek-R1-Distill and QwQ-32B; no system prompt."""

PROMPT_TEMPLATES = {"none": "{problem}", "math": MATH_PROMPT}
"""What a problem's text is put into, by name."""

_FINAL_ANSWER_MARK = "####"  # in the answers of GSM8K


class ProblemText(NamedTuple):
    """A problem to collect on.

    Attributes:
        problem_id: decides the split (training, validation or test), so it must stay the same.
        prompt: what the models are asked.
        trace: a given reasoning, used instead of one by the target; empty if there is none.
        gold: the right answer; empty if it is not known.
    """

    problem_id: str
    prompt: str
    trace: str = ""
    gold: str = ""


ProblemSource = Callable[[int | None], list[ProblemText]]
"""Returns the first `count` problems of a source; None asks for the source's default number."""

_SOURCES: dict[str, ProblemSource] = {}


def register_problem_source(name: str, source: ProblemSource) -> None:
    """Makes problems available under a name; replaces an earlier source of that name."""
    _SOURCES[name] = source


def read_problems(
    source: str,
    count: int | None = None,
    trace_field: str | None = None,
    config: str | None = None,
    template: str = "none",
) -> list[ProblemText]:
    """Reads problems from a registered source, a JSONL file, or a data set (`org/name[:split]` or a local folder).

    A row holds its prompt in the field `prompt`, `problem` or `question`. Its id is the field `id`, or else the
    number of the row, starting with 1. The field `answer` holds the right answer, if there is one.

    Args:
        count: reads only the first `count` problems; the rows of a data set on the hub are streamed then.
        trace_field: the field that holds a given reasoning.
        config: the configuration of a hub data set that has several.
        template: what each prompt is put into: a name out of `PROMPT_TEMPLATES`, or a text with `{problem}` in it.

    Raises:
        ConfigError: the source cannot be read or is empty, a row has no prompt or no trace, or the template is unknown.
    """
    form = _template(template)
    return [
        problem._replace(prompt=form.format(problem=problem.prompt))
        for problem in _read_rows(source, count, trace_field, config)
    ]


def _template(name: str) -> str:
    if name in PROMPT_TEMPLATES:
        return PROMPT_TEMPLATES[name]
    try:
        if name.format(problem="") != name.format(problem="x"):
            return name
    except (LookupError, ValueError):
        pass
    raise ConfigError(
        f"the prompt template is {name!r}; expected {', '.join(PROMPT_TEMPLATES)}, or a text with {{problem}} in it "
        "(other braces doubled)"
    )


def _read_rows(
    source: str, count: int | None, trace_field: str | None, config: str | None
) -> list[ProblemText]:
    from semanticspec.problems.hub import hub_name, hub_rows

    if source in _SOURCES:
        if trace_field:
            raise ConfigError(f"the problems of {source!r} have no traces; leave --traces out")
        return _SOURCES[source](count)
    name = hub_name(source, config)
    if config and name is None:
        raise ConfigError(f"{source!r} is not a data set, so it has no configuration; leave --config out")
    rows = hub_rows(name, streaming=count is not None) if name else read_jsonl(source)
    what = "row" if name else "line"
    found = [
        _problem(row, f"{source}, {what} {number}", str(number), trace_field)
        for number, row in enumerate(islice(rows, count), start=1)
    ]
    if not found:
        raise ConfigError(f"{source} holds no problems")
    return found


def read_jsonl(path: str) -> Iterator[Any]:
    """Yields the values of a JSONL file, skipping blank lines.

    Raises:
        ConfigError: the file cannot be read, or a line is not valid JSON.
    """
    try:
        # not splitlines, which also splits at characters inside JSON strings, such as U+2028
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text ({error.reason}); expected JSONL") from error
    except OSError as error:
        known = ", ".join((*_SOURCES, "a JSONL file"))
        raise ConfigError(
            f"cannot read problems from {path!r} ({error.strerror}); expected {known}, "
            "a folder with a data set, or the name of one on the hub, such as openai/gsm8k:train"
        ) from error
    for number, line in enumerate(filter(str.strip, lines), start=1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{path}, line {number}: not valid JSON ({error})") from error


def _problem(entry: Any, where: str, default_id: str, trace_field: str | None) -> ProblemText:
    """Makes a problem of a row.

    Raises:
        ConfigError: the prompt is missing, or the trace that was asked for.
    """
    fields: Mapping[str, Any] = entry if isinstance(entry, Mapping) else {}
    prompt = next((fields[name] for name in PROMPT_FIELDS if fields.get(name)), None)
    if prompt is None:
        listed = ", ".join(map(str, fields)) or "none"
        raise ConfigError(f"{where}: expected one of the fields {', '.join(PROMPT_FIELDS)}; got {listed}")
    trace = fields.get(trace_field) if trace_field else ""
    if trace_field and not (isinstance(trace, str) and trace.strip()):
        raise ConfigError(
            f"{where}: the field {trace_field!r}, which should hold the trace, is missing or empty"
        )
    problem_id = default_id if fields.get("id") is None else fields["id"]  # a data set fills gaps with None
    answer = fields.get("answer")
    gold = "" if answer is None else str(answer).rpartition(_FINAL_ANSWER_MARK)[2].strip()
    return ProblemText(str(problem_id), str(prompt), str(trace), gold)
