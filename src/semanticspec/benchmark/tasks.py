"""Benchmark tasks: where problems come from, how a model is asked, and how its answer is graded.

To add a task, register it under the name that `--task` takes: `register_task(Task("my-task", ...))`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

from semanticspec.benchmark.grading import Grader, MathVerifyGrader, check_math_verify
from semanticspec.benchmark.grading_worker import LETTERS
from semanticspec.engines.base import derived_seed
from semanticspec.errors import ConfigError
from semanticspec.problems.hub import HubName, hub_name, hub_rows
from semanticspec.problems.sources import MATH_PROMPT, read_jsonl

PILOT_PROBLEMS = 20
"""Problems of the random control's pilot."""

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
class BenchProblem:
    """A problem as a model is asked it.

    Attributes:
        gold: the right answer; a letter for multiple choice.
    """

    problem_id: str
    prompt: str
    gold: str

    @property
    def digest(self) -> str:
        """Hash of prompt and gold answer; detects rows of another problem with the same id."""
        return hashlib.sha256(f"{self.prompt}\0{self.gold}".encode()).hexdigest()[:16]


class TaskProblems(NamedTuple):
    """The problems to compare methods on, and others for the random control's pilot."""

    compared: list[BenchProblem]
    pilot: list[BenchProblem]


@dataclass(frozen=True, slots=True)
class Task:
    """A set of problems and how their answers are graded.

    Attributes:
        source: a data set on the hub; None if `--data` is required.
        multiple_choice: answers are letters, and the options are shuffled by a seed.
        make_grader: creates the grader; None for math-verify.
        generate: generates the problems instead of reading them: takes their number (None: a default one), and
            returns them and those of the pilot.
        generated_by: what generates them, for `config.json`.
    """

    name: str
    source: HubName | None = None
    multiple_choice: bool = False
    make_grader: Callable[[], Grader] | None = None
    generate: Callable[[int | None], TaskProblems] | None = None
    generated_by: str = ""

    def data_name(self, data: str | None) -> str:
        """Returns where the problems come from, for `config.json`."""
        return data or (self.generated_by if self.source is None else self.source.repo)

    def check_grader(self) -> None:
        """Raises ConfigError if grading needs a library that is not installed."""
        if self.make_grader is None:
            check_math_verify()

    def start_grader(self) -> Grader:
        """Returns a grader, which the caller closes."""
        if self.make_grader is not None:
            return self.make_grader()
        return MathVerifyGrader("letter" if self.multiple_choice else "math")

    def read(self, data: str | None, count: int | None, options_seed: int) -> TaskProblems:
        """Returns the first `count` problems (None: all), and up to `PILOT_PROBLEMS` of the last others for a pilot.

        Args:
            data: a JSONL file or a hub data set that replaces the task's own.

        Raises:
            ConfigError: the problems cannot be read, one is invalid, or there are fewer than `count`.
        """
        if self.generate is not None and data is None:
            return self.generate(count)
        problems = self.read_all(data, options_seed)
        if count is not None and count > len(problems):
            raise ConfigError(
                f"-n is {count}, but the task {self.name} has {len(problems)} problems; use fewer"
            )
        compared = problems[:count]
        return TaskProblems(compared, problems[len(compared) :][-PILOT_PROBLEMS:])

    def read_all(self, data: str | None, options_seed: int) -> list[BenchProblem]:
        """Returns all problems of a JSONL file or a hub data set.

        A row has `problem` and `answer`, and for multiple choice the wrong options as `options`.

        Args:
            options_seed: shuffles the options, separately for each problem.

        Raises:
            ConfigError: the problems cannot be read, or one is invalid.
        """
        rows, origin = self._rows(data)
        problems = [
            self._problem(row, number, f"{origin}, row {number}", options_seed)
            for number, row in enumerate(rows, start=1)
        ]
        if not problems:
            raise ConfigError(f"{origin} holds no problems")
        ids = Counter(problem.problem_id for problem in problems)
        if len(ids) < len(problems):
            raise ConfigError(
                f"{origin} has two problems with the id {ids.most_common(1)[0][0]!r}; make ids unique"
            )
        return problems

    def _rows(self, data: str | None) -> tuple[Iterable[Any], str]:
        """Returns the raw rows, and the name of their source for error messages."""
        if self.generate is not None:
            raise ConfigError(
                f"the task {self.name} generates its own problems; leave --data and --pilot-data out, or use the task "
                "custom"
            )
        name = self.source if data is None else hub_name(data, None)
        if name is not None:
            return hub_rows(name), name.repo
        if data is None:
            raise ConfigError(
                f"the task {self.name} needs --data: a JSONL file with `problem` and `answer`, or ORG/NAME[:SPLIT]"
            )
        return read_jsonl(data), data

    def _problem(self, row: Any, number: int, where: str, options_seed: int) -> BenchProblem:
        if not isinstance(row, Mapping):
            raise ConfigError(f"{where}: expected an object with `problem` and `answer`")
        text, answer = _field(row, _PROBLEM_FIELDS, where), _field(row, _ANSWER_FIELDS, where)
        problem_id = str(next((row[name] for name in _ID_FIELDS if row.get(name) is not None), number))
        if self.multiple_choice:
            options, gold = _shuffled(row, answer, derived_seed(options_seed, problem_id), where)
            return BenchProblem(problem_id, CHOICE_PROMPT.format(problem=text, options=options), gold)
        gold = answer.rpartition(_GSM8K_MARK)[2].strip()
        return BenchProblem(problem_id, MATH_PROMPT.format(problem=text), gold)


TASKS: dict[str, Task] = {}
"""All registered tasks by name."""


def register_task(task: Task) -> None:
    """Makes a task available under its name; replaces an earlier task of that name."""
    TASKS[task.name] = task


def find_task(name: str) -> Task:
    """Returns a registered task.

    Raises:
        ConfigError: there is no task of that name.
    """
    if name not in TASKS:
        raise ConfigError(
            f"there is no task {name!r}; choose from {', '.join(TASKS)} (custom: your own problems, with --data)"
        )
    return TASKS[name]


for _task in (
    Task("gsm8k", HubName("openai/gsm8k", "test", "main")),
    Task("math500", HubName("HuggingFaceH4/MATH-500", "test", None)),
    Task("aime24", HubName("HuggingFaceH4/aime_2024", "train", None)),
    Task("aime25", HubName("math-ai/aime25", "test", None)),
    Task("amc23", HubName("math-ai/amc23", "test", None)),
    Task("gpqa_diamond", HubName("Idavidrein/gpqa", "train", "gpqa_diamond"), multiple_choice=True),
    Task("custom"),
):
    register_task(_task)


def _field(row: Mapping[str, Any], names: tuple[str, ...], where: str) -> str:
    """Returns the first of these fields that has a value, as text."""
    value = next((row[name] for name in names if row.get(name) not in (None, "")), None)
    if value is None or not str(value).strip():
        listed = ", ".join(map(str, row)) or "none"
        raise ConfigError(f"{where}: the field `{names[0]}` is missing or empty; the row has {listed}")
    return str(value).strip()


def _shuffled(row: Mapping[str, Any], right: str, seed: int, where: str) -> tuple[str, str]:
    """Returns the shuffled options as lines "(A) ...", and the letter of the right one."""
    wrong = row.get("options") or [row.get(name) for name in _WRONG_FIELDS]
    texts = [str(option).strip() for option in wrong if option is not None] if isinstance(wrong, list) else []
    texts = [option for option in texts if option != right]
    if len(texts) != len(LETTERS) - 1:
        raise ConfigError(
            f"{where}: expected {len(LETTERS) - 1} wrong options, in `options` or `{_WRONG_FIELDS[0]}` and so on; "
            f"got {len(texts)}"
        )
    options = [right, *texts]
    Random(seed).shuffle(options)
    lines = [f"({letter}) {option}" for letter, option in zip(LETTERS, options, strict=True)]
    return "\n".join(lines), LETTERS[options.index(right)]
