"""Who may work, who has to wait, and who is sent away: a bounded queue in front of the models."""

from __future__ import annotations

import asyncio
import math
import time
from typing import Literal

from semanticspec.server.api.errors import ApiError

_NEWEST_WEIGHT = 0.2
"""Of the newest request in the running mean of seconds, which Retry-After is made of."""


class Admission:
    """Places for outputs that are being written, and a queue in front of them, first come first served.

    Attributes:
        running, waiting: how many outputs are being written, and how many wait for their turn.
    """

    def __init__(self, max_running: int, max_waiting: int) -> None:
        self.running = self.waiting = 0
        self._max_running = max_running
        self._most = max_running + max_waiting
        self._free = asyncio.Semaphore(max_running)
        self._mean_s = 1.0

    def reserve(self, count: int) -> list[Place]:
        """Places in the queue for all outputs of a request. Every one has to be left, whatever happens.

        Raises:
            ApiError: 400 if there can never be so many, 429 if there are too many now.
        """
        if count > self._most:
            raise ApiError(
                400,
                f"the request asks for {count} outputs and the server holds {self._most} at most; ask for fewer",
                param="n",
                code="too_many_outputs",
            )
        if self.running + self.waiting + count > self._most:
            raise ApiError(
                429,
                f"{self.running} outputs are being written and {self.waiting} wait; try again later",
                code="overloaded",
                headers={"Retry-After": str(self._retry_after_s())},
            )
        return [Place(self) for _ in range(count)]

    def _retry_after_s(self) -> int:
        """About when a place is free: at the recent pace the queue is done by then; a minute at the most."""
        rounds = 1 + self.waiting / self._max_running
        return max(1, min(60, math.ceil(self._mean_s * rounds)))

    async def _enter(self) -> None:
        await self._free.acquire()
        self.waiting -= 1
        self.running += 1

    def _leave(self, seconds: float) -> None:
        self.running -= 1
        self._free.release()
        self._mean_s += _NEWEST_WEIGHT * (seconds - self._mean_s)


class Place:
    """One output's place in the queue, then at work."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._state: Literal["waiting", "working", "left"] = "waiting"
        self._since = time.perf_counter()
        admission.waiting += 1

    async def enter(self) -> float:
        """Waits for its turn; returns for how many seconds."""
        await self._admission._enter()
        self._state = "working"
        came, self._since = self._since, time.perf_counter()
        return self._since - came

    def leave(self) -> None:
        """Makes room for others. Doing it twice does no harm."""
        if self._state == "working":
            self._admission._leave(time.perf_counter() - self._since)
        elif self._state == "waiting":
            self._admission.waiting -= 1
        self._state = "left"
