"""A client's request in progress: decodes its outputs concurrently and merges what they produce into one queue.

A job is a task of its own, so that a disconnect, the time limit or a shutdown can stop it from outside.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from semanticspec.decoding.pair import Pair
from semanticspec.server.api.errors import ApiError, as_api_error
from semanticspec.server.metrics import Metrics
from semanticspec.server.scheduling.admission_queue import Slot
from semanticspec.server.scheduling.outputs import (
    OutputItem,
    OutputResult,
    OutputSpec,
    decode_output,
)
from semanticspec.text.filters import TextPiece


class Job:
    """All outputs of one request. It starts when it is created and takes over the slots.

    Attributes:
        request_id: also the id of the response.
        specs: one for each output.
        task: the running job.
    """

    def __init__(
        self,
        pair: Pair,
        specs: Sequence[OutputSpec],
        slots: Sequence[Slot],
        metrics: Metrics,
        request_id: str,
        timeout_s: float,
    ) -> None:
        self.request_id = request_id
        self.specs = specs
        self._pair, self._slots, self._metrics, self._timeout_s = pair, slots, metrics, timeout_s
        self._started_s = time.perf_counter()
        self._has_text = False
        self._updates: asyncio.Queue[tuple[int, OutputItem] | None] = asyncio.Queue()
        self._stop_reason: ApiError | None = None
        self.task = asyncio.create_task(self._run(), name=request_id)
        self.task.add_done_callback(self._on_done)

    def stop(self, reason: ApiError | None = None) -> None:
        """Cancels decoding. A reader of `updates` gets `reason` as an error."""
        self._stop_reason = self._stop_reason or reason
        self.task.cancel()

    async def updates(self) -> AsyncGenerator[tuple[int, OutputItem], None]:
        """Yields items with the index of their output, until all outputs are finished. Closing it stops the job.

        Raises:
            ApiError: the job failed or was stopped.
        """
        try:
            while (update := await self._updates.get()) is not None:
                yield update
            if self._stop_reason is not None:
                raise self._stop_reason
            self.task.result()
        finally:
            self.stop()

    def _on_done(self, task: asyncio.Task[None]) -> None:
        """Cleans up; also runs if the task was cancelled before its first step."""
        for slot in self._slots:
            slot.release()
        if not task.cancelled():
            task.exception()  # mark as retrieved: after a disconnect nobody else does
        self._updates.put_nowait(None)

    async def _run(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s), asyncio.TaskGroup() as group:
                for index, slot in enumerate(self._slots):
                    group.create_task(self._run_output(index, slot))
        except TimeoutError:
            raise ApiError(
                504,
                f"the request exceeded this server's limit of {self._timeout_s:g} s",
                code="timeout",
                headers={"x-should-retry": "false"},  # otherwise the openai client retries twice
            ) from None
        except ExceptionGroup as group_error:
            raise as_api_error(group_error.exceptions[0]) from None

    async def _run_output(self, index: int, slot: Slot) -> None:
        try:
            self._metrics.queue_s.observe(await slot.acquire())
            items = decode_output(self._pair, self.specs[index], f"{self.request_id}-{index}")
            async with aclosing(items):
                async for item in items:
                    self._record(item)
                    self._updates.put_nowait((index, item))
        except BaseException as error:
            cancelled = isinstance(error, asyncio.CancelledError)
            self._metrics.record_end("abort" if cancelled else "error", self._elapsed_s)
            raise
        finally:
            slot.release()

    def _record(self, item: OutputItem) -> None:
        if isinstance(item, TextPiece) and not self._has_text:
            self._has_text = True
            self._metrics.first_text_s.observe(self._elapsed_s)
        elif isinstance(item, OutputResult):
            self._metrics.record_end(item.result.finish_reason, self._elapsed_s)
            self._metrics.record_output(item.result.stats, item.result.segments)

    @property
    def _elapsed_s(self) -> float:
        return time.perf_counter() - self._started_s
