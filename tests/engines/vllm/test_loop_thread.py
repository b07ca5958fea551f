"""A loop thread serves callers on any event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator

import pytest

from semanticspec.engines.vllm.loop_thread import LoopThread
from semanticspec.errors import EngineError


def test_callers_on_several_event_loops() -> None:
    thread = LoopThread("test")

    async def where() -> str:
        return threading.current_thread().name

    async def letters(ended: list[bool]) -> AsyncGenerator[str, None]:
        try:
            for letter in "abc":
                yield letter
            raise EngineError("no more letters")
        finally:
            ended.append(True)

    async def caller() -> None:
        assert await thread.run(where()) == "test"
        ended: list[bool] = []
        seen: list[str] = []

        async def read() -> None:
            async for letter in thread.iterate(letters(ended)):
                seen.append(letter)

        with pytest.raises(EngineError, match="no more letters"):
            await read()
        assert seen == ["a", "b", "c"]
        assert ended == [True]
        started, cancelled = threading.Event(), threading.Event()

        async def forever() -> None:
            started.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        task = asyncio.create_task(thread.run(forever()))
        assert await asyncio.to_thread(started.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(cancelled.wait, 5)

    try:
        for _ in range(2):
            asyncio.run(caller())
        assert thread.wait(where()) == "test"
    finally:
        thread.stop()
