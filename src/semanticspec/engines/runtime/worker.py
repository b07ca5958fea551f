"""A worker thread per model. Calls take turns on it, one step at a time, and stop soon after they are cancelled."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from semanticspec.engines.base import EngineInfo, TokenChunk
from semanticspec.engines.runtime.engine import BaseEngine
from semanticspec.engines.runtime.requests import GenerateRequest, ScoreRequest
from semanticspec.errors import EngineError, SemanticSpecError, first_line
from semanticspec.records import Generation, Score

ResultT = TypeVar("ResultT")
Steps = Generator[tuple[int, ...], None, ResultT]
"""A call as the worker runs it: each step takes some milliseconds and yields the tokens generated in it."""


@dataclass(frozen=True, slots=True)
class _Outcome(Generic[ResultT]):
    """The end of a job: a result or an error."""

    result: ResultT | None
    error: BaseException | None = None

    def get(self) -> ResultT:
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]


class _Job(Generic[ResultT]):
    """A running call. Its outcome, and its tokens if `with_tokens`, arrive in a queue on the caller's event loop."""

    def __init__(self, steps: Steps[ResultT], with_tokens: bool) -> None:
        self.steps = steps
        self.with_tokens = with_tokens  # waking the event loop every step costs CPU time
        self.cancelled = False
        self.items: asyncio.Queue[tuple[int, ...] | _Outcome[ResultT]] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def put(self, item: tuple[int, ...] | _Outcome[ResultT]) -> None:
        try:
            self._loop.call_soon_threadsafe(self.items.put_nowait, item)
        except RuntimeError:  # the caller's event loop has been closed
            self.cancelled = True


class Worker:
    """Runs jobs round-robin on one thread, one step per turn, in inference mode."""

    def __init__(self, num_threads: int) -> None:
        """Starts the thread.

        Args:
            num_threads: CPU threads that torch may use per operation.
        """
        # The first call fixes torch's default for the calling thread, so that the worker's setting stays its own.
        torch.get_num_threads()
        self._executor = ThreadPoolExecutor(
            1, thread_name_prefix="engine", initializer=lambda: torch.set_num_threads(num_threads)
        )
        self._closed = False

    def run_at_start(self, function: Callable[[], ResultT]) -> ResultT:
        """Runs a function on the thread and waits for it, before there are calls. Ends the thread if it fails."""
        try:
            return self._executor.submit(function).result()
        except BaseException:
            self._executor.shutdown(wait=False)
            raise

    async def run(self, steps: Steps[ResultT]) -> ResultT:
        """Runs a call to its end. Cancelling this stops the call after its current step."""
        async with aclosing(self.stream(steps, with_tokens=False)) as items:
            async for item in items:
                if isinstance(item, _Outcome):
                    return item.get()
        raise AssertionError("a job ends with an outcome")

    async def stream(
        self, steps: Steps[ResultT], with_tokens: bool = True
    ) -> AsyncGenerator[tuple[int, ...] | _Outcome[ResultT], None]:
        """Yields the tokens of each step (if `with_tokens`), and the outcome last. Closing this stops the call."""
        job = _Job(steps, with_tokens)
        self._executor.submit(self._take_turn, job)
        try:
            while True:
                item = await job.items.get()
                yield item
                if isinstance(item, _Outcome):
                    return
        finally:
            job.cancelled = True

    async def aclose(self, free: Callable[[], None]) -> None:
        """Fails all jobs, runs `free` on the worker thread, and ends the thread."""
        self._closed = True
        # A job whose step is running submits its next step once more. Wait for that turn to fail before `free` runs.
        await asyncio.wrap_future(self._executor.submit(lambda: None))
        await asyncio.wrap_future(self._executor.submit(free))
        await asyncio.to_thread(self._executor.shutdown)

    def _take_turn(self, job: _Job[ResultT]) -> None:
        try:
            if self._closed:
                raise EngineError("the engine is closed; load the model again")
            with torch.inference_mode():
                if job.cancelled:
                    job.steps.close()
                    return
                token_ids = next(job.steps)
            if job.with_tokens and token_ids:
                job.put(token_ids)
            self._executor.submit(self._take_turn, job)
        except StopIteration as end:
            job.put(_Outcome(end.value))
        except SemanticSpecError as error:
            job.steps.close()
            job.put(_Outcome(None, error))
        except Exception as error:  # usually out of memory; also a submission during interpreter shutdown
            job.steps.close()
            failure = EngineError(f"the model failed: {type(error).__name__}: {first_line(error)}")
            failure.__cause__ = error
            job.put(_Outcome(None, failure))


class WorkerEngine(BaseEngine):
    """An engine that runs its model on a worker thread, with a prefix cache of its own."""

    def __init__(self, info: EngineInfo, worker: Worker) -> None:
        super().__init__(info)
        self._worker = worker

    @abstractmethod
    def _generate_steps(self, request: GenerateRequest) -> Steps[list[Generation]]:
        """Returns the steps of a `generate` or `stream` call."""

    @abstractmethod
    def _score_steps(self, request: ScoreRequest) -> Steps[list[Score]]:
        """Returns the steps of a `score` call."""

    @abstractmethod
    def _clear_cache(self) -> None:
        """Empties the prefix cache. Runs on the worker thread."""

    @abstractmethod
    def _free(self) -> None:
        """Frees the model. Runs on the worker thread, after all calls have ended."""

    async def _generate(self, request: GenerateRequest) -> list[Generation]:
        return await self._worker.run(self._generate_steps(request))

    async def _stream(self, request: GenerateRequest) -> AsyncGenerator[TokenChunk | Generation, None]:
        async with aclosing(self._worker.stream(self._generate_steps(request))) as items:
            async for item in items:
                yield item.get()[0] if isinstance(item, _Outcome) else TokenChunk(item)

    async def _score(self, request: ScoreRequest) -> list[Score]:
        return await self._worker.run(self._score_steps(request))

    async def reset_cache(self) -> None:
        """See `ResettableCache.reset_cache`."""

        def clear() -> Steps[None]:
            self._clear_cache()
            yield ()

        self._check_open()
        await self._worker.run(clear())

    async def aclose(self) -> None:
        """See `Engine.aclose`."""
        if not self.closed:
            self.closed = True
            await asyncio.shield(self._worker.aclose(self._free))
