"""Working on many items at the same time."""

from __future__ import annotations

import asyncio

import pytest

from semanticspec.errors import ProbeError
from semanticspec.training.concurrency import work_on


def test_as_many_items_as_told_are_in_progress() -> None:
    running, most, done = 0, 0, []

    async def work(item: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        done.append(item)

    asyncio.run(work_on(range(10), work, 3))
    assert (most, sorted(done)) == (3, list(range(10)))


def test_a_failure_ends_the_others() -> None:
    started: list[int] = []

    async def work(item: int) -> None:
        started.append(item)
        await asyncio.sleep(0)
        if item == 1:
            raise ProbeError("full")
        await asyncio.sleep(60)

    with pytest.raises(ProbeError, match="full"):
        asyncio.run(work_on(range(10), work, 2))
    assert started == [0, 1]
