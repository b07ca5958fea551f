"""The folder of a replay: its configuration and one line per play."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semanticspec.benchmark.folder import CONFIG_FILE as BENCH_CONFIG_FILE
from semanticspec.benchmark.folder import RunFolder
from semanticspec.benchmark.replay.play import Play
from semanticspec.errors import BenchmarkError

PLAYS_FILE = "plays.jsonl"
Key = tuple[int, int, str]
"""Trial number, request number, case name."""


@dataclass(frozen=True, slots=True)
class Record:
    """A play with its key."""

    trial: int
    request: int
    case: str
    play: Play

    @property
    def key(self) -> Key:
        return self.trial, self.request, self.case


class ReplayFolder(RunFolder):
    """Like a benchmark folder, with plays instead of rows."""

    config_file, lines_file = "replay.json", PLAYS_FILE

    def check_is_none_of_a_benchmark(self) -> None:
        """Raises BenchmarkError if this is a benchmark folder: both write `summary.json`."""
        if (self.path / BENCH_CONFIG_FILE).is_file():
            raise BenchmarkError(f"{self.path} is a benchmark folder; choose another --out for the replay")

    def plays(self) -> dict[Key, Record]:
        """Returns all finished plays.

        Raises:
            BenchmarkError: a line is broken, other than one cut off at the end.
        """
        records: dict[Key, Record] = {}
        for line in self._journal.read():
            record = _record(line, self.path)
            records.setdefault(record.key, record)
        return records

    def add(self, record: Record) -> None:
        """Appends a play durably."""
        line: dict[str, Any] = {
            "trial": record.trial,
            "request": record.request,
            "case": record.case,
            "decisions": "replayed",
            "play": record.play.to_json(),
        }
        self._journal.append([line])


def _record(line: dict[str, Any], path: Path) -> Record:
    try:
        return Record(line["trial"], line["request"], line["case"], Play.from_json(line["play"]))
    except (KeyError, TypeError, ValueError) as error:
        raise BenchmarkError(f"a line of {path / PLAYS_FILE} is broken ({error}); delete it") from error
