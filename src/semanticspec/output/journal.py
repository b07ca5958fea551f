"""Append-only files of JSON lines. A process that is killed loses at most the line that it was writing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from semanticspec.errors import ProbeError, SemanticSpecError


class Journal:
    """A file with one JSON object per line, written by one process at a time.

    A line is complete once its line break is written. Text after the last line break was cut off, for example on a
    full disk; it is ignored when reading, and removed before the next line is appended.
    """

    def __init__(self, path: Path, error: type[SemanticSpecError] = ProbeError) -> None:
        """Creates the journal; nothing is read or written yet.

        Args:
            error: the type of the errors that `read` and `append` raise.
        """
        self.path = path
        self._error = error

    def read(self) -> list[dict[str, Any]]:
        """Returns the complete lines; none if the file does not exist.

        Raises:
            SemanticSpecError: the file cannot be read, or a complete line is not a JSON object.
        """
        try:
            content = self.path.read_bytes()
            lines = content[: content.rfind(b"\n") + 1].splitlines()
            records = [json.loads(line) for line in lines]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._error(f"cannot read {self.path}: {error.strerror}; check the path") from error
        except ValueError as error:
            raise self._error(
                f"{self.path} is broken ({error}); delete the file and rerun the command"
            ) from error
        if not all(isinstance(record, dict) for record in records):
            raise self._error(
                f"{self.path} is broken (not all lines are JSON objects); delete the file and rerun the command"
            )
        return records

    def append(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Appends lines. When this returns, they survive a kill of this process.

        Raises:
            SemanticSpecError: they cannot be written, for example on a full disk; earlier lines are kept.
        """
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
        try:
            with self.path.open("a+b") as file:
                end = _end_of_last_line(file)
                file.truncate(end)
                file.write(lines)
        except OSError as error:
            raise self._error(
                f"cannot write {self.path}: {error.strerror}; earlier lines are kept, rerun the command to resume"
            ) from error


def _end_of_last_line(file: Any) -> int:
    """Returns the position after the last line break."""
    end = int(file.seek(0, 2))
    while end:
        start = max(0, end - 4096)
        file.seek(start)
        place = file.read(end - start).rfind(b"\n")
        if place >= 0:
            return start + int(place) + 1
        end = start
    return 0
