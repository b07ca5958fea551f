"""Speculation under load: with many requests at once, the target alone can give more tokens a second.

Requests that decode together share forward passes; a drafted segment and its verification are a request's own. Which
gives more is measured: all requests of a pair run in one mode at a time (speculating, or the target alone), and the
mode with the higher throughput at this number of requests is kept.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Below this many requests, an unknown pair speculates first; else the target first writes alone, which is safe.
_FEW_REQUESTS = 3
# Throughput grows at most like this power of the number of requests: rows of a batch cost almost nothing, passes over
# drafted segments are separate.
_GROWTH = {True: 0.5, False: 1.0}
# A measurement starts after a warm-up, in which work of the previous mode ends, and takes this many tokens per request.
_WINDOW_TOKENS = 8
_LONGEST_WARM_UP_S, _LONGEST_WINDOW_S, _SHORTEST_WINDOW_S = 2.0, 4.0, 0.25
# A quarter of the longest measurement is enough for a mode with less than this share of the other's throughput.
_HOPELESS = 0.5
# A mode that was not measured yet is tried if its throughput may exceed the other's by this factor.
_MIN_PROMISE = 1.1
# The other mode is measured again after this many measurements of the better one, if it reached this share of it.
_RETRY_WINDOWS, _CLOSE = 24, 0.8


class Load:
    """Counts the running requests of a pair, and decides whether they speculate or let the target write alone."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._num_running = 0
        # Tokens per second, by `_level` and whether requests speculate.
        self._rates: dict[tuple[int, bool], float] = {}
        self._num_windows: dict[int, int] = {}
        self._window = _Window(-1, True, 0.0)

    @contextmanager
    def request(self) -> Iterator[None]:
        """Counts a request while it runs."""
        with self._lock:
            self._num_running += 1
        try:
            yield
        finally:
            with self._lock:
                self._num_running -= 1

    def speculates(self) -> bool:
        """Whether requests should speculate now. A single request always may."""
        if self._level != self._window.level:
            self._start(self._better(self._level))
        return self._num_running < 2 or self._window.speculates

    def report(self, num_tokens: int) -> None:
        """Reports output tokens of any request."""
        window, now = self._window, self._now()
        if window.level != self._level:
            return  # the next decision starts a new measurement
        window.num_reports += 1
        if window.start is None:
            if window.num_reports >= self._num_running or now - window.created >= _LONGEST_WARM_UP_S:
                window.start, window.num_reports = now, 0
            return
        window.num_tokens += num_tokens
        seconds = now - window.start
        enough = window.num_tokens >= _WINDOW_TOKENS * self._num_running and seconds >= _SHORTEST_WINDOW_S
        other = self._rates.get((window.level, not window.speculates), 0.0)
        hopeless = seconds >= _LONGEST_WINDOW_S / 4 and window.num_tokens < _HOPELESS * other * seconds
        if (enough and window.num_reports >= self._num_running) or hopeless or seconds >= _LONGEST_WINDOW_S:
            self._record(window, window.num_tokens / seconds)

    @property
    def _level(self) -> int:
        """0 for one request, 1 for two, 2 for up to four, 3 for up to eight, ..."""
        return math.ceil(math.log2(max(1, self._num_running)))

    def _record(self, window: _Window, rate: float) -> None:
        key = window.level, window.speculates
        self._rates[key] = (self._rates[key] + rate) / 2 if key in self._rates else rate
        better = self._better(window.level)
        count = self._num_windows[window.level] = self._num_windows.get(window.level, 0) + 1
        other = self._rates.get((window.level, not better), 0.0)
        if count % _RETRY_WINDOWS == 0 and other >= _CLOSE * self._rates.get(
            (window.level, better), math.inf
        ):
            better = not better
        self._start(better)

    def _start(self, speculates: bool) -> None:
        self._window = _Window(self._level, speculates, self._now())

    def _better(self, level: int) -> bool:
        """Whether speculating is better, or worth a trial, at a level."""
        speculating, alone = self._estimate(level, True), self._estimate(level, False)
        if speculating is None or alone is None:
            unknown = speculating is None and alone is None
            return 2**level < _FEW_REQUESTS if unknown else speculating is None
        known = self._rates.keys()
        if (level, True) not in known and (level, False) in known:
            return speculating > _MIN_PROMISE * alone
        if (level, False) not in known and (level, True) in known:
            return alone <= _MIN_PROMISE * speculating
        return speculating >= alone

    def _estimate(self, level: int, speculates: bool) -> float | None:
        """Returns the measured throughput, or the highest that measurements at other levels allow; None = unknown."""
        levels = [known for known, mode in self._rates if mode == speculates]
        if not levels:
            return None
        nearest = min(levels, key=lambda known: (abs(known - level), -known))
        growth: float = 2.0 ** (_GROWTH[speculates] * max(0, level - nearest))
        return self._rates[nearest, speculates] * growth


class _Window:
    """One measurement. `start` is None while work that began before it may still be reported."""

    def __init__(self, level: int, speculates: bool, created: float) -> None:
        self.level, self.speculates, self.created = level, speculates, created
        self.start: float | None = None
        self.num_reports = self.num_tokens = 0
