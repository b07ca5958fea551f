"""The folder of a benchmark: its configuration, its rows, and that both belong together."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from semanticspec.benchmark.methods import Method
from semanticspec.benchmark.rows import Row
from semanticspec.benchmark.tasks import BenchProblem
from semanticspec.decoding.pair import Model, Pair
from semanticspec.errors import BenchmarkError, first_line
from semanticspec.output.files import write_atomically
from semanticspec.output.journal import Journal

FORMAT = 1
CONFIG_FILE, ROWS_FILE, SUMMARY_FILE, LOCK_FILE = "config.json", "rows.jsonl", "summary.json", ".lock"
_MOST_DIFFERENCES = 4


class BenchFolder:
    """What is on the disk. Rows are only ever added."""

    config_file, rows_file = CONFIG_FILE, ROWS_FILE

    def __init__(self, path: Path) -> None:
        self.path = path
        self._journal = Journal(path / self.rows_file, BenchmarkError)

    @property
    def exists(self) -> bool:
        return (self.path / self.config_file).is_file()

    def config(self) -> dict[str, Any]:
        """The saved configuration.

        Raises:
            BenchmarkError: there is none, or it is broken.
        """
        path = self.path / self.config_file
        try:
            found = json.loads(path.read_text())
        except OSError as error:
            raise BenchmarkError(
                f"{self.path} is no folder of a benchmark ({path.name}: {error.strerror}); name the one given to --out"
            ) from error
        except ValueError as error:
            raise BenchmarkError(f"{path} is broken ({first_line(error)}); use another --out") from error
        if not isinstance(found, dict) or not {"run", "methods"} <= found.keys():
            raise BenchmarkError(f"{path} is not a benchmark's configuration; use another --out")
        return found

    def check(self, run: Mapping[str, Any], methods: Mapping[str, Any]) -> None:
        """Compares what both the folder and this run say; other methods and more problems are no difference.

        Args:
            run: what all rows share; parts may be left out. methods: descriptions by name.

        Raises:
            BenchmarkError: they differ; the message says in what.
        """
        if not self.exists:
            if (self.path / self.rows_file).is_file():
                raise BenchmarkError(
                    f"{self.path} has {self.rows_file} and no {self.config_file}; use another --out"
                )
            return
        saved = self.config()
        differences = list(_differences(saved["run"], _plain(run)))
        for name, description in _plain(methods).items():
            differences += _differences(saved["methods"].get(name, {}), description, f"{name}: ")
        if differences:
            more = len(differences) - _MOST_DIFFERENCES
            listed = "; ".join(differences[:_MOST_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")
            raise BenchmarkError(
                f"{self.path} holds a benchmark of another configuration: {listed}; use another --out "
                "(the rows there are kept)"
            )

    def save_config(self, run: Mapping[str, Any], methods: Mapping[str, Any], **extent: Any) -> None:
        """Writes the configuration; methods that were there before stay.

        Args:
            extent: what may grow from run to run, such as the number of problems.
        """
        there = self.config()["methods"] if self.exists else {}
        content = {"run": _plain(run), "methods": there | _plain(methods), **extent}
        self._write(self.config_file, json.dumps(content, indent=1, ensure_ascii=False))

    def rows(self) -> list[Row]:
        """All whole rows; one for each request, the first if there are several.

        Raises:
            BenchmarkError: a line is broken, other than one cut off at the end.
        """
        rows: dict[tuple[str, str, int, str], Row] = {}
        for record in self._journal.read():
            row = Row.from_json(record)
            rows.setdefault(row.key, row)
        return list(rows.values())

    def check_rows(self, rows: Iterable[Row], problems: Iterable[BenchProblem]) -> None:
        """Raises BenchmarkError if rows are of other problems than those of the same id."""
        digests = {problem.problem_id: problem.digest for problem in problems}
        for row in rows:
            if digests.get(row.problem_id, row.digest) != row.digest:
                raise BenchmarkError(
                    f"{self.path} holds rows of another problem {row.problem_id!r}: its text or its answer is not that "
                    "of the data now; use another --out (the rows there are kept)"
                )

    def append(self, row: Row) -> None:
        """Adds a row; it survives the end of the process from the moment this returns."""
        self._journal.append([row.to_json()])

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Writes `summary.json`."""
        self._write(SUMMARY_FILE, json.dumps(summary, indent=1, ensure_ascii=False))

    def join(self, others: Sequence[BenchFolder]) -> None:
        """Makes this folder of the rows of others, which shared one benchmark, each with problems of its own.

        Raises:
            BenchmarkError: there is a benchmark here already, or the others differ in more than problems and methods.
        """
        if self.exists or (self.path / self.rows_file).exists():
            raise BenchmarkError(f"{self.path} holds a benchmark; join into another --out")
        read = [(folder.config(), folder.rows()) for folder in others]
        for config, _ in read:
            for folder in others:
                folder.check(config["run"], config["methods"])
        rows = {row.key: row for _, own in reversed(read) for row in own}

        def united(name: str) -> dict[str, Any]:
            return {key: value for config, _ in read for key, value in config[name].items()}

        self._journal.append([row.to_json() for row in rows.values()])
        self.save_config(
            read[0][0]["run"],
            united("methods"),
            problems=len({row.problem_id for row in rows.values()}),
            samples=max(config["samples"] for config, _ in read),
            pilots=united("pilots"),
            command="\n".join(config["command"] for config, _ in read),
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps a second process from measuring into the same folder. Freed when the process ends, however it does.

        Raises:
            BenchmarkError: another process is at work, or the folder cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with (self.path / LOCK_FILE).open("w") as file:
                _lock(file)
                yield
        except BlockingIOError as error:
            raise BenchmarkError(
                f"another process is writing to {self.path}; wait for it or use another --out"
            ) from error
        except OSError as error:
            raise BenchmarkError(f"{self.path} cannot be written: {error.strerror or error}") from error

    def _write(self, name: str, text: str) -> None:
        write_atomically(self.path / name, (text + "\n").encode())


def describe_method(method: Method) -> dict[str, Any]:
    """What a method is, for the configuration: its settings in full."""
    config = getattr(method, "config", None)
    described: dict[str, Any] = {"lossy": method.lossy}
    if is_dataclass(config) and not isinstance(config, type):
        described["config"] = asdict(config)
    settings = getattr(method, "settings", None)
    if settings is not None:
        known = is_dataclass(settings) and not isinstance(settings, type)
        described["settings"] = asdict(settings) if known else settings
    return _plain(described)  # type: ignore[no-any-return]


def describe_pair(pair: Pair) -> dict[str, Any]:
    """Models and probes by name and revision."""
    return {
        "target": _describe_model(pair.target),
        "draft": _describe_model(pair.draft),
        "target_probe": _describe_probe(pair.target_probe),
        "draft_probe": _describe_probe(pair.draft_probe),
    }


def describe_machine(device: str) -> dict[str, Any]:
    """What the seconds depend on."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    machine = {"cpu": _cpu_name(), "cores": cores, "threads": torch.get_num_threads()}
    if device.startswith("cuda") or (device == "auto" and torch.cuda.is_available()):
        machine["gpu"] = torch.cuda.get_device_name()
    return machine


def describe_versions() -> dict[str, str]:
    """Of what the seconds and the texts depend on, as far as it is installed."""
    found = {}
    for name in ("semanticspec", "torch", "transformers", "llama-cpp-python"):
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _describe_model(model: Model) -> dict[str, str]:
    return {"model": model.engine.info.model_id, "revision": model.engine.info.revision}


def _describe_probe(probe: Any) -> str | None:
    """The digest of the probe's weights, where it has a card."""
    if probe is None:
        return None
    return str(getattr(getattr(probe, "card", None), "weights_digest", type(probe).__name__))


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _lock(file: Any) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: two processes in one folder are not noticed there
        return
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _plain(value: Any) -> Any:
    """As JSON gives it back, so that tuples and lists compare equal."""
    return json.loads(json.dumps(value))


def _differences(there: Any, here: Any, path: str = "") -> Sequence[str]:
    """One text for each value that both have and that is not the same."""
    if isinstance(there, dict) and isinstance(here, dict):
        found: list[str] = []
        for name in here.keys() & there.keys() if there else ():
            joint = "" if not path or path.endswith(": ") else "."
            found += _differences(there[name], here[name], f"{path}{joint}{name}")
        return sorted(found)
    return [] if there == here else [f"{path} is {_short(there)} there and {_short(here)} here"]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
