"""Writing what the `probe` commands make, with errors of one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from semanticspec.errors import ProbeError


@contextmanager
def storing(place: Path) -> Iterator[None]:
    """Turns a failure to write, such as a full disk, into an error of one line.

    Raises:
        ProbeError: something under `place` could not be written.
    """
    try:
        yield
    except OSError as error:
        raise ProbeError(
            f"{place} cannot be written: {error.strerror or error}; what was finished before is kept, the same command "
            "goes on"
        ) from error
