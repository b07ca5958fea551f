"""One thread per model: calls take turns on it, and stop soon after nobody waits for them any more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

import torch

from semanticspec.errors import EngineError, SemanticSpecError

ResultT = TypeVar("ResultT")
Steps = Generator[tuple[int, ...], None, ResultT]
"""A call as the worker sees it: each step runs for some milliseconds and yields the tokens written in it."""

SMALL_MODEL_PARAMETERS = 10_000_000
"""Below this, sharing one operation among CPU threads costs more than it saves: see docs/experiments.md."""

_CLOSED = "the engine is closed; load the model again"


def threads_for(num_parameters: int, asked: int | None, usual: int) -> int:
    """CPU threads of one operation: those asked for, else one for small models and the usual number for others."""
    return asked or (1 if num_parameters < SMALL_MODEL_PARAMETERS else usual)


class _Job(Generic[ResultT]):
    """A call under way. What it hands over arrives in `results`, on the caller's event loop."""

    def __init__(self, steps: Steps[ResultT], streams: bool) -> None:
        self.steps = steps
        self.streams = streams
        self.cancelled = False
        self._loop = asyncio.get_running_loop()
        self.results: asyncio.Queue[tuple[int, ...] | _Outcome[ResultT]] = asyncio.Queue()

    def hand_over(self, item: tuple[int, ...] | _Outcome[ResultT]) -> None:
        try:
            self._loop.call_soon_threadsafe(self.results.put_nowait, item)
        except RuntimeError:  # the caller's event loop is gone, and the caller with it
            self.cancelled = True


class _Outcome(Generic[ResultT]):
    """How a job ended: with a result or an error."""

    def __init__(self, result: ResultT | None, error: BaseException | None = None) -> None:
        self._result = result
        self._error = error

    def get(self) -> ResultT:
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]


class Worker:
    """Runs calls step by step, in the order they came, one step each in turn."""

    def __init__(self, set_up: Callable[[], None]) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="engine", initializer=set_up)
        self._closed = False

    def check_open(self) -> None:
        """Raises EngineError after `aclose`."""
        if self._closed:
            raise EngineError(_CLOSED)

    async def run(self, steps: Steps[ResultT]) -> ResultT:
        """Runs a call to its end. Cancelling this stops the call after its current step."""
        async with contextlib.aclosing(self._results(_Job(steps, streams=False))) as results:
            async for item in results:
                if isinstance(item, _Outcome):
                    return item.get()
        raise AssertionError("a job ends with an outcome")

    async def stream(self, steps: Steps[ResultT]) -> AsyncGenerator[tuple[int, ...] | ResultT, None]:
        """Hands out a call's tokens as they come, then its result. Closing this stops the call."""
        async with contextlib.aclosing(self._results(_Job(steps, streams=True))) as results:
            async for item in results:
                yield item.get() if isinstance(item, _Outcome) else item

    async def aclose(self, free: Callable[[], None]) -> None:
        """Ends all calls, runs `free` on the worker's thread and ends the thread."""
        if self._closed:
            return
        self._closed = True
        # A call whose step runs now queues its next one once more: `free` comes after that one has failed at its turn.
        await asyncio.wrap_future(self._executor.submit(lambda: None))
        await asyncio.wrap_future(self._executor.submit(free))
        await asyncio.to_thread(self._executor.shutdown)

    async def _results(self, job: _Job[ResultT]) -> AsyncGenerator[tuple[int, ...] | _Outcome[ResultT], None]:
        self.check_open()
        self._executor.submit(self._take_turn, job)
        try:
            while True:
                item = await job.results.get()
                yield item
                if isinstance(item, _Outcome):
                    return
        finally:
            job.cancelled = True

    def _take_turn(self, job: _Job[ResultT]) -> None:
        try:
            if self._closed:
                raise EngineError(_CLOSED)
            with torch.inference_mode():
                if job.cancelled:
                    job.steps.close()
                    return
                token_ids = next(job.steps)
            if job.streams and token_ids:
                job.hand_over(token_ids)
            self._executor.submit(self._take_turn, job)
        except StopIteration as end:
            job.hand_over(_Outcome(end.value))
        except SemanticSpecError as error:
            job.steps.close()
            job.hand_over(_Outcome(None, error))
        except Exception as error:
            # Also a resubmission after interpreter exit began. Out of memory is the usual one.
            job.steps.close()
            line = (str(error).strip().splitlines() or [""])[0]
            failure = EngineError(f"the model failed while it worked: {type(error).__name__}: {line}")
            failure.__cause__ = error
            job.hand_over(_Outcome(None, failure))
