"""Response bodies in OpenAI's format: a whole response, or the chunks of a stream."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from semanticspec.records import SegmentDecided, SegmentDrafted, SpeculationEnded
from semanticspec.server.api.schemas import ChatRequest, CompletionRequest
from semanticspec.server.scheduling.outputs import OutputItem, OutputResult, OutputSpec
from semanticspec.text.filters import TextPiece


class Reply:
    """Builds the response to one request from the items of its outputs."""

    def __init__(
        self,
        body: ChatRequest | CompletionRequest,
        specs: Sequence[OutputSpec],
        request_id: str,
        model_name: str,
    ) -> None:
        self._is_chat = isinstance(body, ChatRequest)
        self._num_outputs = len(specs)
        self._prompt_tokens = sum(spec.prompt_tokens for spec in specs[:: body.n])  # each prompt counts once
        self._include_usage = body.include_usage
        self._reports_segments = body.speculation.segments
        self._head = {"id": request_id, "created": int(time.time()), "model": model_name}
        self._texts: defaultdict[tuple[int, str], str] = defaultdict(str)
        self._results: dict[int, OutputResult] = {}

    def add(self, index: int, item: OutputItem) -> None:
        """Adds an item of an output to the whole response."""
        if isinstance(item, TextPiece):
            self._texts[index, item.channel] += item.text
        elif isinstance(item, OutputResult):
            self._results[index] = item

    def response(self) -> dict[str, Any]:
        """Returns the whole response, once all outputs are finished."""
        choices = []
        for index in range(self._num_outputs):
            content, reasoning = self._texts[index, "content"], self._texts[index, "reasoning"] or None
            message = {"role": "assistant", "content": content, "refusal": None}
            message |= {"reasoning": reasoning, "reasoning_content": reasoning}
            text: dict[str, Any] = {"message": message} if self._is_chat else {"text": content}
            choices.append(_choice(index, text, self._results[index].result.finish_reason))
        name = "chat.completion" if self._is_chat else "text_completion"
        totals = {"usage": self._usage(), "metrics": self._metrics()}
        return self._head | {"object": name, "choices": choices} | totals

    def first_chunks(self) -> list[dict[str, Any]]:
        """Returns the chunks before any text: in a chat, the role of each choice."""
        if not self._is_chat:
            return []
        text = {"delta": {"role": "assistant", "content": ""}}
        return [self._chunk([_choice(index, text)]) for index in range(self._num_outputs)]

    def chunks(self, index: int, item: OutputItem) -> list[dict[str, Any]]:
        """Returns the chunks of a stream for an item of an output."""
        no_text: dict[str, Any] = {"delta": {}} if self._is_chat else {"text": ""}
        if isinstance(item, OutputResult):
            self._results[index] = item
            return self._last_chunks(self._chunk([_choice(index, no_text, item.result.finish_reason)]))
        if isinstance(item, SegmentDrafted):
            drafted = {"text": item.text, "num_tokens": item.num_tokens}
            return [self._chunk([_choice(index, no_text)], semantic={"drafted": drafted})]
        if isinstance(item, SegmentDecided):
            decided = asdict(item.segment) | {"num_kept": item.num_kept}
            return [self._chunk([_choice(index, no_text)], semantic={"decided": decided})]
        if isinstance(item, SpeculationEnded):
            return [self._chunk([_choice(index, no_text)], semantic={"speculation_ended": asdict(item)})]
        text: dict[str, Any] = {"delta": _delta(item)} if self._is_chat else {"text": item.text}
        author = {"author": item.author} if self._reports_segments else None
        return [self._chunk([_choice(index, text)], semantic=author)]

    def _last_chunks(self, last: dict[str, Any]) -> list[dict[str, Any]]:
        """Returns an output's last chunk; after the last output also metrics and, if requested, usage."""
        if len(self._results) < self._num_outputs:
            return [last]
        if not self._include_usage:
            return [last | {"metrics": self._metrics()}]
        return [last, self._chunk([]) | {"usage": self._usage(), "metrics": self._metrics()}]

    def _chunk(self, choices: list[dict[str, Any]], semantic: dict[str, Any] | None = None) -> dict[str, Any]:
        name = "chat.completion.chunk" if self._is_chat else "text_completion"
        chunk = self._head | {"object": name, "choices": choices}
        if self._include_usage:
            chunk["usage"] = None  # as in OpenAI's streams: null in every chunk but the last
        return chunk if semantic is None else chunk | {"semantic": semantic}

    def _usage(self) -> dict[str, Any]:
        results = self._results.values()
        completion = sum(output.result.stats.num_tokens for output in results)
        return {
            "prompt_tokens": self._prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self._prompt_tokens + completion,
            "completion_tokens_details": {
                "reasoning_tokens": sum(output.reasoning_tokens for output in results)
            },
        }

    def _metrics(self) -> dict[str, Any]:
        """Returns speculation statistics, summed over all outputs."""
        results = {index: output.result for index, output in sorted(self._results.items())}

        def total(name: str) -> Any:
            return sum(getattr(result.stats, name) for result in results.values())

        accepted, rejected = total("segments_accepted"), total("segments_rejected")
        drafted, kept = total("drafted_tokens"), total("draft_tokens")
        phases = ("draft", "verify", "rewrite", "probe", "wall")
        semantic: dict[str, Any] = {
            "num_segments_accepted": accepted,
            "num_segments_rejected": rejected,
            "segment_acceptance_rate": _ratio(accepted, accepted + rejected),
            "draft_token_share": _ratio(kept, total("num_tokens")),
            "lossy": any(result.lossy for result in results.values()),
            "seconds": {phase: round(total(f"{phase}_s"), 6) for phase in phases},
        }
        if any(result.speculation_ended for result in results.values()):
            semantic["speculation_ended"] = [
                {"choice": index} | asdict(result.speculation_ended)
                for index, result in results.items()
                if result.speculation_ended is not None
            ]
        if self._reports_segments:
            semantic["segments"] = [
                {"choice": index} | asdict(segment)
                for index, result in results.items()
                for segment in result.segments
            ]
        speculative_decoding = {
            "num_spec_steps": accepted + rejected,
            "num_draft_tokens": drafted,
            "num_accepted_draft_tokens": kept,
            "draft_acceptance_rate": _ratio(kept, drafted),
        }
        return {"speculative_decoding": speculative_decoding, "semantic": semantic}


def _choice(index: int, text: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": index, **text, "logprobs": None, "finish_reason": finish_reason}


def _delta(piece: TextPiece) -> dict[str, str]:
    """Returns a chat delta. Reasoning goes into two fields, because clients differ in which one they read."""
    if piece.channel == "reasoning":
        return {"reasoning": piece.text, "reasoning_content": piece.text}
    return {"content": piece.text}


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
