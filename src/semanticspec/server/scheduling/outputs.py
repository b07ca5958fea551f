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
    SegmentDecided,
    SegmentDrafted,
    SpeculationEnded,
    TextWritten,
    ThinkingEnded,
)
from semanticspec.text.chat import Prompt
from semanticspec.text.filters import TextPiece, ThinkSplitter
from semanticspec.text.thinking import ThinkTags


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """One output to decode.

    Attributes:
        prompt_tokens: length of the prompt in target tokens.
        think_tags: the texts around the target's reasoning.
        starts_in_thinking: the chat template opens the reasoning.
        splits_thinking: separate reasoning from content and remove think tags (chat endpoint).
        reports_segments: also yield drafted segments, the decisions on them, and where speculation ended.
    """

    prompt: Prompt
    config: DecodingConfig
    prompt_tokens: int
    think_tags: ThinkTags
    starts_in_thinking: bool
    splits_thinking: bool = True
    reports_segments: bool = False


@dataclass(frozen=True, slots=True)
class OutputResult:
    """The last item of an output.

    Attributes:
        reasoning_tokens: number of output tokens up to and including `</think>`.
    """

    result: Result
    reasoning_tokens: int


OutputItem = TextPiece | SegmentDrafted | SegmentDecided | SpeculationEnded | OutputResult


async def decode_output(pair: Pair, spec: OutputSpec, request_id: str) -> AsyncGenerator[OutputItem, None]:
    """Decodes one output; yields `OutputResult` last. Closing the generator stops decoding."""
    splitter = (
        ThinkSplitter(spec.think_tags, starts_in_thinking=spec.starts_in_thinking)
        if spec.splits_thinking
        else None
    )
    thinking_tokens: int | None = None
    # In a thread: tokenizing a long prompt would block all other streams.
    events = await asyncio.to_thread(decode, pair, spec.prompt, spec.config, request_id=request_id)
    async with aclosing(events):
        async for event in events:
            if isinstance(event, TextWritten):
                piece = TextPiece(event.author, event.text)
                for part in _without_empty(piece) if splitter is None else splitter.push(piece):
                    yield part
            elif isinstance(event, ThinkingEnded):
                thinking_tokens = event.num_tokens
            elif isinstance(event, Finished):
                for part in [] if splitter is None else splitter.close():
                    yield part
                has_reasoning = splitter is not None and splitter.has_reasoning
                yield _output_result(event.result, thinking_tokens, has_reasoning=has_reasoning)
            elif spec.reports_segments:
                yield event


def _without_empty(piece: TextPiece) -> list[TextPiece]:
    return [piece] if piece.text else []


def _output_result(result: Result, thinking_tokens: int | None, *, has_reasoning: bool) -> OutputResult:
    """Counts the reasoning: up to `</think>`, or all of the output if it was not reached."""
    num_tokens = result.stats.num_tokens
    reasoning_tokens = num_tokens if thinking_tokens is None else thinking_tokens
    return OutputResult(result, reasoning_tokens if has_reasoning else 0)
