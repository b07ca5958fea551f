"""Progress of long commands, on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from semanticspec.output.console import messages

_SPEED_PERIOD_S = 3600.0
_LINE_PERIOD_S = 60.0


@contextmanager
def progress_bar(
    name: str, *, quiet: bool = False
) -> Iterator[tuple[Callable[[str], None], Callable[[int], None]]]:
    """Shows a progress bar, or at most one line per minute if standard error is not a terminal.

    Args:
        quiet: shows no notes in the bar, and no lines.

    Yields:
        A function that advances the bar by one step with a note, and a function that sets the total.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        lines = _Lines(name, quiet)
        yield lines.advance, lines.set_total
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    # Steps may take minutes; by default, rich estimates the speed from the last 30 s.
    with Progress(*columns, console=console, speed_estimate_period=_SPEED_PERIOD_S) as progress:
        task = progress.add_task(name, total=None, note="")
        yield (
            lambda note: progress.update(task, advance=1, note="" if quiet else note),
            lambda total: progress.update(task, total=total),
        )


class _Lines:
    """Progress as lines of text, at most one per minute."""

    def __init__(self, name: str, quiet: bool) -> None:
        self._name, self._quiet = name, quiet
        self._start = self._last = time.monotonic()
        self._count = 0
        self._total: int | None = None

    def set_total(self, total: int) -> None:
        self._total = total

    def advance(self, note: str) -> None:
        self._count += 1
        now = time.monotonic()
        if self._quiet or now - self._last < _LINE_PERIOD_S:
            return
        self._last = now
        done = f"{self._count}"
        if self._total is not None:
            left_s = (now - self._start) / self._count * (self._total - self._count)
            done += f" of {self._total}, about {left_s / 60:.0f} min left"
        say(f"{self._name}: {done}{'; ' * bool(note)}{note}")


def say(text: str) -> None:
    """Prints a line for the user on standard error."""
    messages().print(text)
