"""The results folder of a run: its configuration and its rows, which are only ever appended."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NotRequired

from filelock import FileLock, Timeout
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from semanticspec.benchmark.rows import Row, RowKey
from semanticspec.benchmark.tasks import BenchProblem
from semanticspec.errors import BenchmarkError
from semanticspec.output.differences import as_json, differences, listed
from semanticspec.output.files import write_atomically
from semanticspec.output.journal import Journal
from semanticspec.output.validation import validation_message

FORMAT = 1
CONFIG_FILE, ROWS_FILE, SUMMARY_FILE, LOCK_FILE = "config.json", "rows.jsonl", "summary.json", ".lock"
_STRICT = ConfigDict(extra="forbid")


@with_config(_STRICT)
class RunDescription(TypedDict):
    """What all rows of a benchmark have in common."""

    format: int
    task: str
    data: str
    pair_name: str
    seed: int
    options_seed: int | None
    engines: dict[str, str]
    dtype: str
    device: str
    decoding: dict[str, Any]
    concurrency: NotRequired[int]
    pair: NotRequired[dict[str, Any]]
    machine: NotRequired[dict[str, Any]]
    versions: NotRequired[dict[str, str]]


@with_config(_STRICT)
class MethodDescription(TypedDict):
    """One method, see `describe_method`."""

    lossy: bool
    config: NotRequired[dict[str, Any]]
    settings: NotRequired[Any]


@with_config(_STRICT)
class BenchConfig(TypedDict):
    """The content of `config.json`.

    `pilots` holds the ids of the problems from which each random control took its acceptance rates.
    """

    run: RunDescription
    methods: dict[str, MethodDescription]
    problems: int
    samples: int
    pilots: dict[str, list[str]]
    command: str


class RunFolder:
    """A configuration and a journal of lines, written by one process at a time."""

    config_file: ClassVar[str]
    lines_file: ClassVar[str]
    config_type: ClassVar[Any] = dict[str, Any]

    def __init__(self, path: Path) -> None:
        self.path = path
        self._journal = Journal(path / self.lines_file, BenchmarkError)

    @property
    def exists(self) -> bool:
        return (self.path / self.config_file).is_file()

    def config(self) -> Any:
        """Returns the saved configuration.

        Raises:
            BenchmarkError: it does not exist or is invalid.
        """
        path = self.path / self.config_file
        try:
            return TypeAdapter(self.config_type).validate_json(path.read_bytes())
        except OSError as error:
            raise BenchmarkError(
                f"{self.path} is not a results folder: cannot read {path.name} ({error.strerror}); expected a "
                "folder that was given to --out"
            ) from error
        except ValidationError as error:
            raise BenchmarkError(f"{validation_message(error, str(path))}; use another --out") from error

    def check(self, run: Mapping[str, Any], methods: Mapping[str, Any]) -> None:
        """Compares a configuration with the saved one, where both have a value.

        Other methods or more problems are no difference.

        Raises:
            BenchmarkError: a value differs; the message names it.
        """
        if not self.exists:
            if (self.path / self.lines_file).is_file():
                raise BenchmarkError(
                    f"{self.path} has {self.lines_file} but no {self.config_file}; use another --out"
                )
            return
        saved = self.config()
        found = differences(saved["run"], as_json(run))
        for name, description in as_json(methods).items():
            found += differences(saved["methods"].get(name, {}), description, f"{name}: ")
        if found:
            raise BenchmarkError(
                f"{self.path} holds results of another configuration: {listed(found)}; use another --out "
                "(existing rows are kept)"
            )

    def save_config(self, run: Mapping[str, Any], methods: Mapping[str, Any], **extent: Any) -> None:
        """Writes the configuration; methods of earlier runs are kept.

        Args:
            extent: what may grow from run to run, such as the number of problems.
        """
        saved = self.config()["methods"] if self.exists else {}
        self._write_json(self.config_file, {"run": run, "methods": {**saved, **methods}, **extent})

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Writes `summary.json`."""
        self._write_json(SUMMARY_FILE, summary)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the folder for this process. The lock ends with the process, however it ends.

        Raises:
            BenchmarkError: another process holds the lock, or the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path / LOCK_FILE, timeout=0):
                yield
        except Timeout as error:
            raise BenchmarkError(
                f"another process is writing to {self.path}; wait for it or use another --out"
            ) from error
        except OSError as error:
            raise BenchmarkError(f"cannot write to {self.path}: {error.strerror or error}") from error

    def _write_json(self, name: str, content: Mapping[str, Any]) -> None:
        write_atomically(
            self.path / name, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
        )


class BenchFolder(RunFolder):
    """The results folder of a benchmark."""

    config_file, lines_file, config_type = CONFIG_FILE, ROWS_FILE, BenchConfig

    def rows(self) -> list[Row]:
        """Returns all complete rows, the first of each request.

        Raises:
            BenchmarkError: a row is invalid. A last line that was cut off is ignored.
        """
        rows: dict[RowKey, Row] = {}
        for number, record in enumerate(self._journal.read(), start=1):
            row = Row.from_json(record, f"{self._journal.path}, line {number}")
            rows.setdefault(row.key, row)
        return list(rows.values())

    def check_rows(self, rows: Iterable[Row], problems: Iterable[BenchProblem]) -> None:
        """Raises BenchmarkError if a row belongs to a problem whose text or answer has changed since."""
        digests = {problem.problem_id: problem.digest for problem in problems}
        for row in rows:
            if digests.get(row.problem_id, row.digest) != row.digest:
                raise BenchmarkError(
                    f"{self.path} holds rows of another problem {row.problem_id!r}: its text or answer differs from "
                    "the data of this run; use another --out (existing rows are kept)"
                )

    def append(self, row: Row) -> None:
        """Appends a row durably."""
        self._journal.append([row.to_json()])

    def join(self, others: Sequence[BenchFolder]) -> None:
        """Fills this folder with the rows of others, which ran one benchmark on different problems.

        Raises:
            BenchmarkError: this folder already holds results, or the others differ in more than problems and methods.
        """
        if self.exists or (self.path / self.lines_file).exists():
            raise BenchmarkError(f"{self.path} already holds results; use another --out")
        parts: list[tuple[BenchConfig, list[Row]]] = [(folder.config(), folder.rows()) for folder in others]
        for config, _ in parts:
            for folder in others:
                folder.check(config["run"], config["methods"])
        rows = {row.key: row for _, own in reversed(parts) for row in own}
        self._journal.append([row.to_json() for row in rows.values()])
        self.save_config(
            parts[0][0]["run"],
            {name: method for config, _ in parts for name, method in config["methods"].items()},
            problems=len({row.problem_id for row in rows.values()}),
            samples=max(config["samples"] for config, _ in parts),
            pilots={name: ids for config, _ in parts for name, ids in config["pilots"].items()},
            command="\n".join(config["command"] for config, _ in parts),
        )
