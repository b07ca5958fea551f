"""Decoding of one output: turns decoding events into what clients receive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from semanticspec.config import DecodingConfig
from semanticspec.decoding.generate import decode
from semanticspec.decoding.pair import Pair
from semanticspec.records import (
    Finished,
    Result,
    Segment,
    SegmentDecided,
    SegmentDrafted,
    Stats,
    StopReason,
    TextWritten,
)
from semanticspec.server.scheduling.event_tally import EventTally
from semanticspec.server.scheduling.text_filters import StopStringFilter, TextPiece, ThinkSplitter
from semanticspec.text.chat import Prompt
from semanticspec.text.thinking import ThinkTags


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """One output to decode.

    Attributes:
        prompt_tokens: length of the prompt in target tokens.
        think_tags: the texts around the target's reasoning.
        starts_in_thinking: the chat template opens the reasoning.
        stops: the output ends before the first of these strings.
        splits_thinking: separate reasoning from content and remove think tags (chat endpoint).
        reports_segments: also yield drafted segments and the decisions on them.
    """

    prompt: Prompt
    config: DecodingConfig
    prompt_tokens: int
    think_tags: ThinkTags
    starts_in_thinking: bool
    stops: tuple[str, ...] = ()
    splits_thinking: bool = True
    reports_segments: bool = False


@dataclass(frozen=True, slots=True)
class OutputResult:
    """The last item of an output.

    Attributes:
        reasoning_tokens: number of output tokens up to and including `</think>`.
        lossy: the output's distribution can differ from the target's.
    """

    finish_reason: StopReason
    stats: Stats
    segments: tuple[Segment, ...]
    reasoning_tokens: int
    lossy: bool


OutputItem = TextPiece | SegmentDrafted | SegmentDecided | OutputResult


async def decode_output(pair: Pair, spec: OutputSpec, request_id: str) -> AsyncGenerator[OutputItem, None]:
    """Decodes one output; yields `OutputResult` last. Closing the generator stops decoding."""
    text = _OutputText(spec)
    tally = EventTally()
    reasoning_tokens = 0
    result: Result | None = None  # stays None if a stop string ends the output
    # In a thread: tokenizing a long prompt would block all other streams.
    events = await asyncio.to_thread(decode, pair, spec.prompt, spec.config, request_id=request_id)
    async with aclosing(events):
        async for event in events:
            tally.add(event)
            if isinstance(event, TextWritten):
                if text.in_reasoning:
                    end = pair.target.segmenter.think_end(event.token_ids)
                    reasoning_tokens += len(event.token_ids) if end is None else end
                for piece in text.push(TextPiece(event.author, event.text)):
                    yield piece
            elif isinstance(event, SegmentDrafted | SegmentDecided) and spec.reports_segments:
                yield event
            elif isinstance(event, Finished):
                result = event.result
            if text.stopped:
                break
    for piece in text.close():
        yield piece
    yield OutputResult(
        "stop" if result is None else result.finish_reason,
        tally.stats(spec.prompt_tokens) if result is None else result.stats,
        tuple(tally.segments) if result is None else result.segments,
        reasoning_tokens if text.has_reasoning else 0,
        spec.config.lossy,
    )


class _OutputText:
    """The filters for an output's text: stop strings, then think tags."""

    def __init__(self, spec: OutputSpec) -> None:
        self._stop_filter = StopStringFilter(spec.stops)
        splitter = ThinkSplitter(spec.think_tags, starts_in_thinking=spec.starts_in_thinking)
        self._splitter = splitter if spec.splits_thinking else None

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found."""
        return self._stop_filter.found

    @property
    def in_reasoning(self) -> bool:
        """Whether the next text is reasoning, or could still be."""
        return self._splitter is not None and self._splitter.thinking is not False

    @property
    def has_reasoning(self) -> bool:
        return self._splitter is not None and self._splitter.has_reasoning

    def push(self, piece: TextPiece) -> list[TextPiece]:
        return self._split(self._stop_filter.push(piece))

    def close(self) -> list[TextPiece]:
        pieces = self._split(self._stop_filter.close())
        return pieces if self._splitter is None else pieces + self._splitter.close()

    def _split(self, pieces: list[TextPiece]) -> list[TextPiece]:
        if self._splitter is None:
            return pieces
        return [part for piece in pieces for part in self._splitter.push(piece)]
