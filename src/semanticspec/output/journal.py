"""A file that grows line by line, so that a process killed at any moment loses at most the line it was writing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from semanticspec.errors import ProbeError, SemanticSpecError


class Journal:
    """JSON objects, one a line. One process writes at a time.

    A line counts when its line break is there. What follows the last line break was cut off by a kill or a full
    disk; it is dropped before the next line is written.
    """

    def __init__(self, path: Path, error: type[SemanticSpecError] = ProbeError) -> None:
        """`error` is what is raised where `ProbeError` is named below."""
        self.path = path
        self._error = error

    def read(self) -> list[dict[str, Any]]:
        """All whole lines, none if there is no file.

        Raises:
            ProbeError: the file cannot be read, or a whole line is no JSON object.
        """
        try:
            whole = self.path.read_bytes()
            lines = whole[: whole.rfind(b"\n") + 1].splitlines()
            records = [json.loads(line) for line in lines]
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise self._error(
                f"{self.path} is broken ({error}); delete it and run the command again"
            ) from error
        if not all(isinstance(record, dict) for record in records):
            raise self._error(
                f"{self.path} is broken (not all lines are objects); delete it and run the command again"
            )
        return records

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Adds lines; they survive the end of this process from the moment this returns.

        Raises:
            ProbeError: they cannot be written, such as on a full disk; what was there before is kept.
        """
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
        try:
            with self.path.open("a+b") as file:
                end = _end_of_last_line(file)
                file.truncate(end)
                file.write(lines)
        except OSError as error:
            raise self._error(
                f"cannot write {self.path}: {error.strerror}; earlier work is kept, the same command goes on"
            ) from error


def _end_of_last_line(file: Any) -> int:
    """The position behind the last line break."""
    end = int(file.seek(0, 2))
    while end:
        start = max(0, end - 4096)
        file.seek(start)
        place = file.read(end - start).rfind(b"\n")
        if place >= 0:
            return start + int(place) + 1
        end = start
    return 0
