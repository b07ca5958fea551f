"""What the `probe` commands show while they work, on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from semanticspec.errors import ProbeError

_SPEED_PERIOD_S = 3600.0


@contextmanager
def progress_bar(name: str) -> Iterator[tuple[Callable[[str], None], Callable[[int], None]]]:
    """A progress bar: one function advances it (with a note), one sets the total."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    console = Console(stderr=True)
    # Steps may take minutes; by default only those of the last 30 s count for the time left.
    with Progress(*columns, console=console, speed_estimate_period=_SPEED_PERIOD_S) as progress:
        task = progress.add_task(name, total=None, note="")
        yield (
            lambda note: progress.update(task, advance=1, note=note),
            lambda total: progress.update(task, total=total),
        )


def say(text: str) -> None:
    """A line for the user."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(text)


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
