"""Wall-clock seconds of one request, by phase."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Phase = Literal["draft", "verify", "rewrite", "probe"]


class Clock:
    """A stopwatch with phases. Phases nest: the inner phase's seconds do not count for the outer one.

    Attributes:
        seconds: wall-clock seconds so far, by phase.
    """

    def __init__(self) -> None:
        self._start = self._since = time.perf_counter()
        self._running: list[Phase] = []
        self.seconds: dict[Phase, float] = {"draft": 0.0, "verify": 0.0, "rewrite": 0.0, "probe": 0.0}
        self._last_lap: dict[Phase, float] = {}

    @property
    def wall_s(self) -> float:
        """Seconds since the clock was made."""
        return time.perf_counter() - self._start

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Counts the time spent inside for a phase."""
        self._charge()
        self._running.append(name)
        try:
            yield
        finally:
            self._charge()
            self._running.pop()

    def lap(self, *phases: Phase) -> float:
        """Returns the seconds spent in these phases since the last lap of each."""
        seconds = sum(self.seconds[name] - self._last_lap.get(name, 0.0) for name in phases)
        self._last_lap.update((name, self.seconds[name]) for name in phases)
        return seconds

    def _charge(self) -> None:
        """Adds the time since the last change of phase to the running phase."""
        now = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now
