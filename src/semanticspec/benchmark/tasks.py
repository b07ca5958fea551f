"""The tasks: where their problems come from, how a model is asked, how its answer is graded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from semanticspec.benchmark.grading_worker import LETTERS, GradedBy
from semanticspec.engines.base import derived_seed
from semanticspec.errors import ConfigError
from semanticspec.training.data.hub_problems import HubName, hub_name, hub_rows
from semanticspec.training.data.problems import read_jsonl

PILOT_PROBLEMS = 20

MATH_PROMPT = "{problem}\n\nPlease reason step by step, and put your final answer within \\boxed{{}}."
"""Source: the model cards of DeepSeek-R1-Distill and QwQ-32B; no system prompt."""

CHOICE_PROMPT = (
    "{problem}\n\n{options}\n\n"
    'Please show your choice in the `answer` field with only the choice letter, e.g., `"answer": "C"`.'
)
"""Source: the model card of QwQ-32B."""

_PROBLEM_FIELDS = ("problem", "question", "Question", "prompt")
_ANSWER_FIELDS = ("answer", "Correct Answer")
_ID_FIELDS = ("id", "unique_id", "Record ID", "problem_id")
_WRONG_FIELDS = tuple(f"Incorrect Answer {number}" for number in (1, 2, 3))
_GSM8K_MARK = "####"


@dataclass(frozen=True, slots=True)
class Task:
    """A set of problems.

    Attributes:
        source: a data set on the hub; None for the bundled grammar, and where `--data` has to say it.
    """

    name: str
    graded_by: GradedBy
    source: HubName | None = None


@dataclass(frozen=True, slots=True)
class BenchProblem:
    """A problem as a model is asked it.

    Attributes:
        gold: the right answer, a letter for multiple choice.
    """

    problem_id: str
    prompt: str
    gold: str

    @property
    def digest(self) -> str:
        """Of prompt and gold answer, so that rows of another problem under the same id are noticed."""
        return hashlib.sha256(f"{self.prompt}\0{self.gold}".encode()).hexdigest()[:16]


TASKS = {
    task.name: task
    for task in (
        Task("demo", "demo"),
        Task("demo-validation", "demo"),
        Task("gsm8k", "math", HubName("openai/gsm8k", "test", "main")),
        Task("math500", "math", HubName("HuggingFaceH4/MATH-500", "test", None)),
        Task("aime24", "math", HubName("HuggingFaceH4/aime_2024", "train", None)),
        Task("aime25", "math", HubName("math-ai/aime25", "test", None)),
        Task("amc23", "math", HubName("math-ai/amc23", "test", None)),
        Task("gpqa_diamond", "letter", HubName("Idavidrein/gpqa", "train", "gpqa_diamond")),
        Task("custom", "math"),
    )
}


def find_task(name: str) -> Task:
    """A task by name.

    Raises:
        ConfigError: there is none.
    """
    if name not in TASKS:
        raise ConfigError(
            f"there is no task {name!r}; choose from {', '.join(TASKS)} (custom: your own problems, by --data)"
        )
    return TASKS[name]


def read_task(
    task: Task, data: str | None, count: int | None, options_seed: int
) -> tuple[list[BenchProblem], list[BenchProblem]]:
    """The first `count` problems (None: all), and those for a pilot: the last ones, if they are others.

    Args:
        data: a JSONL file or a data set on the hub, in place of the task's own; a line has `problem` and `answer`,
            for multiple choice also the wrong options, `options`.
        options_seed: shuffles the options of multiple choice, each problem by itself.

    Raises:
        ConfigError: the problems cannot be read, one is no problem, or there are fewer than asked for.
    """
    if task.graded_by == "demo":
        if data is not None:
            raise ConfigError(
                f"the task {task.name} makes its own problems; leave --data out, or use the task custom"
            )
        split = "validation" if task.name == "demo-validation" else "test"
        return _demo(split, count or 100, 0), _demo("validation", PILOT_PROBLEMS, 1)
    problems = read_problems(task, data, options_seed)
    if count is not None and count > len(problems):
        raise ConfigError(f"the task {task.name} has {len(problems)} problems here, and -n asks for {count}")
    chosen = problems[:count]
    return chosen, problems[len(chosen) :][-PILOT_PROBLEMS:]


def read_problems(task: Task, data: str | None, options_seed: int) -> list[BenchProblem]:
    """All problems of a task that is not the demo, see `read_task`."""
    rows, where = _rows(task, data)
    problems = [_problem(task, row, number, where, options_seed) for number, row in enumerate(rows, start=1)]
    if not problems:
        raise ConfigError(f"{where} holds no problems")
    ids = [problem.problem_id for problem in problems]
    if len(set(ids)) < len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise ConfigError(f"{where} has two problems with the id {twice!r}; give each its own")
    return problems


def _rows(task: Task, data: str | None) -> tuple[Iterable[Any], str]:
    """The raw rows and what to call their source in an error."""
    if data is None and task.source is None:
        raise ConfigError(
            f"the task {task.name} needs --data: a JSONL file with `problem` and `answer`, or ORG/NAME[:SPLIT]"
        )
    name = hub_name(data, None) if data is not None else task.source
    if name is not None:
        return hub_rows(name), name.repo
    assert data is not None
    return read_jsonl(data), data


def _problem(task: Task, row: Any, number: int, where: str, options_seed: int) -> BenchProblem:
    if not isinstance(row, Mapping):
        raise ConfigError(f"{where}, row {number}: expected an object with `problem` and `answer`")
    text = _field(row, _PROBLEM_FIELDS, number, where)
    answer = _field(row, _ANSWER_FIELDS, number, where)
    problem_id = str(next((row[name] for name in _ID_FIELDS if row.get(name) is not None), number))
    if task.graded_by == "letter":
        options, gold = _shuffled(
            row, answer, derived_seed(options_seed, problem_id), f"{where}, row {number}"
        )
        return BenchProblem(problem_id, CHOICE_PROMPT.format(problem=text, options=options), gold)
    gold = answer.rpartition(_GSM8K_MARK)[2].strip()
    return BenchProblem(problem_id, MATH_PROMPT.format(problem=text), gold)


def _field(row: Mapping[str, Any], names: tuple[str, ...], number: int, where: str) -> str:
    """The first of these fields that has a value, as text."""
    value = next((row[name] for name in names if row.get(name) not in (None, "")), None)
    if value is None or not str(value).strip():
        listed = ", ".join(map(str, row)) or "none"
        raise ConfigError(f"{where}, row {number}: the field `{names[0]}` is missing; it has {listed}")
    return str(value).strip()


def _shuffled(row: Mapping[str, Any], right: str, seed: int, where: str) -> tuple[str, str]:
    """The options as lines "(A) ...", in an order of their own, and the letter of the right one."""
    wrong = row.get("options") or [row.get(name) for name in _WRONG_FIELDS]
    texts = [str(option).strip() for option in wrong if option is not None] if isinstance(wrong, list) else []
    texts = [option for option in texts if option != right]
    if len(texts) != len(LETTERS) - 1:
        raise ConfigError(
            f"{where}: expected {len(LETTERS) - 1} wrong options, in `options` or `{_WRONG_FIELDS[0]}` and so on; "
            f"it has {len(texts)}"
        )
    options = [right, *texts]
    Random(seed).shuffle(options)
    lines = [f"({letter}) {option}" for letter, option in zip(LETTERS, options, strict=True)]
    return "\n".join(lines), LETTERS[options.index(right)]


def demo_problems(split: str, count: int, seed: int = 0) -> list[BenchProblem]:
    """Problems of the bundled grammar: `test` or `validation`."""
    return _demo(split, count, seed)


def _demo(split: str, count: int, seed: int) -> list[BenchProblem]:
    from semanticspec.demo.grammar import problems

    made = problems(split, count, seed)  # type: ignore[arg-type]
    return [BenchProblem(f"{split}-{seed}-{i}", p.text, str(p.answer)) for i, p in enumerate(made)]
