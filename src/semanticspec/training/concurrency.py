"""Works on many items at the same time, so that engines batch their calls."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from semanticspec.errors import SemanticSpecError

ItemT = TypeVar("ItemT")


async def work_on(items: Iterable[ItemT], work: Callable[[ItemT], Awaitable[None]], concurrency: int) -> None:
    """Works on the items in their order, `concurrency` at a time. The first failure cancels the others.

    Raises:
        SemanticSpecError: An item failed with it.
        ExceptionGroup: An item failed with another error.
    """
    todo = iter(items)

    async def worker() -> None:
        for item in todo:
            await work(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(max(1, concurrency)):
                group.create_task(worker())
    except ExceptionGroup as group:
        first = group.exceptions[0]
        if isinstance(first, SemanticSpecError):
            raise first from first.__cause__
        raise
