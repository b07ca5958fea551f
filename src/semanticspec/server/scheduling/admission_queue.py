"""Bounded first-come, first-served queue in front of the models."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Literal

from semanticspec.server.api.errors import ApiError

_MEAN_DECAY = 0.2
"""Weight of the newest output in the running mean of durations, which `Retry-After` is computed from."""
_MAX_RETRY_AFTER_S = 60


class AdmissionQueue:
    """Limits how many outputs are decoded at a time and how many wait.

    Attributes:
        running, waiting: number of outputs that are being decoded, and that wait for a slot.
    """

    def __init__(self, max_running: int, max_waiting: int) -> None:
        self.running = self.waiting = 0
        self._max_running = max_running
        self._capacity = max_running + max_waiting
        self._free = asyncio.Semaphore(max_running)
        self._mean_duration_s = 1.0

    def reserve(self, count: int) -> list[Slot]:
        """Adds the outputs of a request to the queue. The caller must release every slot.

        Raises:
            ApiError: 400 if the queue can never hold `count` outputs, 429 if it is too full now.
        """
        if count > self._capacity:
            raise ApiError(
                400,
                f"the request asks for {count} outputs; this server holds at most {self._capacity} at a time; "
                "lower n or send fewer prompts",
                param="n",
                code="too_many_outputs",
            )
        if self.running + self.waiting + count > self._capacity:
            raise ApiError(
                429,
                f"the server is overloaded: {self.running} outputs running, {self.waiting} waiting; retry later",
                code="overloaded",
                headers={"Retry-After": str(self._retry_after_s())},
            )
        return [Slot(self) for _ in range(count)]

    def _retry_after_s(self) -> int:
        """Estimates when the queue is empty from the recent duration of outputs."""
        rounds = 1 + self.waiting / self._max_running
        return max(1, min(_MAX_RETRY_AFTER_S, math.ceil(self._mean_duration_s * rounds)))

    async def _start(self) -> None:
        await self._free.acquire()
        self.waiting -= 1
        self.running += 1

    def _finish(self, duration_s: float) -> None:
        self.running -= 1
        self._free.release()
        self._mean_duration_s += _MEAN_DECAY * (duration_s - self._mean_duration_s)


class Slot:
    """The place of one output in the queue."""

    def __init__(self, queue: AdmissionQueue) -> None:
        self._queue = queue
        self._state: Literal["waiting", "running", "released"] = "waiting"
        self._since = time.perf_counter()
        queue.waiting += 1

    async def acquire(self) -> float:
        """Waits until the output may run; returns the waiting time in seconds."""
        await self._queue._start()
        self._state = "running"
        queued_at, self._since = self._since, time.perf_counter()
        return self._since - queued_at

    def release(self) -> None:
        """Frees the slot. Calling it again has no effect."""
        if self._state == "running":
            self._queue._finish(time.perf_counter() - self._since)
        elif self._state == "waiting":
            self._queue.waiting -= 1
        self._state = "released"
