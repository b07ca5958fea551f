"""A client's request at work: its outputs are decoded side by side, and what they say comes out of one queue.

A job is a task of its own, so that it can be stopped from outside: by the client's going away, by its time limit,
by the server's shutting down.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from semanticspec.config import DecodingConfig
from semanticspec.decoding.loop import Request
from semanticspec.decoding.pair import Pair
from semanticspec.records import (
    Event,
    Segment,
    SegmentDecided,
    SegmentDrafted,
    Stats,
    StopReason,
    TextWritten,
)
from semanticspec.server.api.errors import ApiError, as_api_error
from semanticspec.server.api.streaming import ChannelPiece, Piece, StopFinder, ThinkSplitter
from semanticspec.server.metrics import Metrics
from semanticspec.server.scheduling.admission import Place
from semanticspec.text.chat import Prompt


@dataclass(frozen=True, slots=True)
class Plan:
    """One output to be written.

    Attributes:
        stops: the output ends before the first of these.
        parts_thinking: thinking and answer go out apart, without tags (chat); else the text as it is.
        tells_segments: what the draft proposes and its verdicts go out too.
    """

    prompt: Prompt
    config: DecodingConfig
    stops: tuple[str, ...] = ()
    parts_thinking: bool = True
    tells_segments: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """What the draft proposed, or the verdict on it."""

    choice: int
    event: SegmentDrafted | SegmentDecided


@dataclass(frozen=True, slots=True)
class Written:
    """Output that stands."""

    choice: int
    piece: ChannelPiece


@dataclass(frozen=True, slots=True)
class Done:
    """The end of one output.

    Attributes:
        reasoning_tokens: those of its tokens that belong to the thinking, tags included.
        lossy: whether the output's distribution can differ from the target's.
    """

    choice: int
    finish_reason: StopReason
    stats: Stats
    segments: tuple[Segment, ...]
    reasoning_tokens: int
    lossy: bool


Update = Told | Written | Done


@dataclass(slots=True)
class Progress:
    """What of one output has been told, and how much of it was thinking."""

    finder: StopFinder
    splitter: ThinkSplitter | None
    reasoning_tokens: int = 0

    @classmethod
    def of(cls, plan: Plan, request: Request, pair: Pair) -> Progress:
        opened = pair.target.vocabulary.opens_thinking(request.transcript.prompt_ids)
        splitter = ThinkSplitter(inside=opened) if plan.parts_thinking else None
        return cls(StopFinder(plan.stops), splitter)

    def push(self, piece: Piece) -> list[ChannelPiece]:
        """Takes text of the output; returns what may go out."""
        return self._split(self.finder.push(piece))

    def close(self) -> list[ChannelPiece]:
        """What was held back."""
        rest = self._split(self.finder.close())
        return rest + (self.splitter.close() if self.splitter is not None else [])

    def _split(self, pieces: list[Piece]) -> list[ChannelPiece]:
        if self.splitter is None:
            return [ChannelPiece("content", piece.author, piece.text) for piece in pieces]
        return [part for piece in pieces for part in self.splitter.push(piece)]


class Job:
    """All outputs of one client's request.

    Attributes:
        request_id: also the id in the answer.
        num_outputs: how many there will be.
    """

    def __init__(
        self,
        pair: Pair,
        plans: Sequence[Plan],
        places: Sequence[Place],
        metrics: Metrics,
        request_id: str,
        timeout_s: float,
    ) -> None:
        """Starts it; the places become its own."""
        self.request_id = request_id
        self.num_outputs = len(plans)
        self._pair, self._plans, self._places, self._metrics = pair, plans, places, metrics
        self._timeout_s = timeout_s
        self._clock = metrics.new_clock()
        self._updates: asyncio.Queue[Update | None] = asyncio.Queue()
        self._stopped_by: ApiError | None = None
        self.task = asyncio.create_task(self._run(), name=request_id)
        self.task.add_done_callback(self._end)

    def stop(self, why: ApiError | None = None) -> None:
        """Ends the work at once. Whoever still reads updates gets `why`."""
        self._stopped_by = self._stopped_by or why
        self.task.cancel()

    async def updates(self) -> AsyncGenerator[Update, None]:
        """What happens, until all outputs are done. Closing this stops the job.

        Raises:
            ApiError: what ended the job early.
        """
        try:
            while (update := await self._updates.get()) is not None:
                yield update
            if self._stopped_by is not None:
                raise self._stopped_by
            self.task.result()
        finally:
            self.stop()

    def _end(self, task: asyncio.Task[None]) -> None:
        """Runs when the task is over, even if it was stopped before it began."""
        for place in self._places:
            place.leave()
        if not task.cancelled():
            task.exception()  # looked at here: a client that is gone does not ask for it any more
        self._updates.put_nowait(None)

    async def _run(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s), asyncio.TaskGroup() as group:
                for choice, (plan, place) in enumerate(zip(self._plans, self._places, strict=True)):
                    group.create_task(self._write(choice, plan, place))
        except TimeoutError:
            raise ApiError(
                504,
                f"the request took longer than the {self._timeout_s:g} s that this server allows",
                code="timeout",
                headers={"x-should-retry": "false"},  # the openai client would ask, and wait, two times more
            ) from None
        except ExceptionGroup as failed:
            raise as_api_error(failed.exceptions[0]) from None

    async def _write(self, choice: int, plan: Plan, place: Place) -> None:
        """Waits for its turn and decodes one output."""
        try:
            self._metrics.queued(await place.enter())
            # In a thread: it tokenizes the prompt, and all other streams would wait for a long one.
            name = f"{self.request_id}-{choice}"
            request = await asyncio.to_thread(Request, self._pair, plan.config, plan.prompt, name)
            progress = Progress.of(plan, request, self._pair)
            async with aclosing(request.events()) as events:
                async for event in events:
                    self._tell(choice, plan, progress, event)
                    if progress.finder.found:
                        break
            for piece in progress.close():
                self._put(Written(choice, piece))
            self._finish(choice, request, progress)
        except BaseException as error:
            self._metrics.ended(
                self._clock, "abort" if isinstance(error, asyncio.CancelledError) else "error"
            )
            raise
        finally:
            place.leave()

    def _tell(self, choice: int, plan: Plan, progress: Progress, event: Event) -> None:
        """Turns an event of the loop into updates."""
        if isinstance(event, TextWritten):
            self._count_thinking(progress, event)
            for piece in progress.push(Piece(event.author, event.text)):
                self._put(Written(choice, piece))
        elif isinstance(event, SegmentDrafted | SegmentDecided) and plan.tells_segments:
            self._put(Told(choice, event))

    def _count_thinking(self, progress: Progress, event: TextWritten) -> None:
        """Counts tokens up to and with `</think>`; those of the piece that ends it if the tag is plain text."""
        if progress.splitter is not None and progress.splitter.thinking is not False:
            end = self._pair.target.segmenter.think_end(event.token_ids)
            progress.reasoning_tokens += len(event.token_ids) if end is None else end

    def _finish(self, choice: int, request: Request, progress: Progress) -> None:
        thought = progress.splitter is not None and progress.splitter.thought
        reason: StopReason = "length" if request.finish_reason == "length" else "stop"
        done = Done(
            choice,
            "stop" if progress.finder.found else reason,
            request.stats(),
            tuple(request.segments),
            progress.reasoning_tokens if thought else 0,
            request.config.lossy,
        )
        self._metrics.finished(self._clock, done.finish_reason, done.stats, done.segments)
        self._put(done)

    def _put(self, update: Update) -> None:
        if isinstance(update, Written):
            self._metrics.first_text(self._clock)
        self._updates.put_nowait(update)
