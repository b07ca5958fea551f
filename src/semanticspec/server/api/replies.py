"""Answers in OpenAI's form: whole, or as the chunks of a stream."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from semanticspec.records import SegmentDecided, SegmentDrafted
from semanticspec.server.api.streaming import ChannelPiece
from semanticspec.server.scheduling.jobs import Done, Update, Written

Endpoint = Literal["chat", "text"]
_OBJECTS: dict[Endpoint, tuple[str, str]] = {
    "chat": ("chat.completion", "chat.completion.chunk"),
    "text": ("text_completion", "text_completion"),
}


@dataclass(slots=True)
class Reply:
    """The answer to one request as it comes together.

    Attributes:
        prompt_tokens: of all prompts together; several outputs of one prompt count it once.
        tells_segments: drafted segments and verdicts are told, and who wrote which text.
    """

    endpoint: Endpoint
    request_id: str
    model_name: str
    num_outputs: int
    prompt_tokens: int
    include_usage: bool = False
    tells_segments: bool = False
    created: int = field(default_factory=lambda: int(time.time()))
    texts: dict[tuple[int, str], list[str]] = field(default_factory=dict)
    done: dict[int, Done] = field(default_factory=dict)

    def take(self, update: Update) -> None:
        """Notes an update for the whole answer."""
        if isinstance(update, Written):
            place = (update.choice, update.piece.channel)
            self.texts.setdefault(place, []).append(update.piece.text)
        elif isinstance(update, Done):
            self.done[update.choice] = update

    def whole(self) -> dict[str, Any]:
        """The answer, once all outputs are done."""
        choices = [self._whole_choice(choice) for choice in range(self.num_outputs)]
        return self._head(0) | {"choices": choices, "usage": self._usage(), "metrics": self._metrics()}

    def beginning(self) -> list[dict[str, Any]]:
        """The chunks before any text: in a chat, who speaks."""
        if self.endpoint == "text":
            return []
        delta = {"role": "assistant", "content": ""}
        return [self._chunk(self._choice(i, delta=delta)) for i in range(self.num_outputs)]

    def chunks(self, update: Update) -> list[dict[str, Any]]:
        """What a stream tells of an update."""
        self.take(update)
        if isinstance(update, Written):
            return [self._text_chunk(update)]
        if isinstance(update, Done):
            return self._ending(update)
        return [self._chunk(self._empty_choice(update.choice), semantic=_told(update.event))]

    def _text_chunk(self, update: Written) -> dict[str, Any]:
        author = {"author": update.piece.author} if self.tells_segments else None
        if self.endpoint == "text":
            return self._chunk(self._choice(update.choice, text=update.piece.text), semantic=author)
        return self._chunk(self._choice(update.choice, delta=_delta(update.piece)), semantic=author)

    def _ending(self, done: Done) -> list[dict[str, Any]]:
        """The last chunk of an output; after all outputs, metrics, with the usage if it was asked for."""
        last = self._chunk(self._empty_choice(done.choice, done.finish_reason))
        if len(self.done) < self.num_outputs:
            return [last]
        if not self.include_usage:
            return [last | {"metrics": self._metrics()}]
        totals = {"choices": [], "usage": self._usage(), "metrics": self._metrics()}
        return [last, self._head(1) | totals]

    def _head(self, place: Literal[0, 1]) -> dict[str, Any]:
        return {
            "id": self.request_id,
            "object": _OBJECTS[self.endpoint][place],
            "created": self.created,
            "model": self.model_name,
        }

    def _chunk(self, choice: dict[str, Any], *, semantic: dict[str, Any] | None = None) -> dict[str, Any]:
        chunk = self._head(1) | {"choices": [choice]}
        if self.include_usage:
            chunk["usage"] = None  # OpenAI's streams have it in every chunk once usage is asked for
        if semantic is not None:
            chunk["semantic"] = semantic
        return chunk

    def _empty_choice(self, index: int, finish_reason: str | None = None) -> dict[str, Any]:
        if self.endpoint == "text":
            return self._choice(index, finish_reason, text="")
        return self._choice(index, finish_reason, delta={})

    def _choice(self, index: int, finish_reason: str | None = None, **text: Any) -> dict[str, Any]:
        return {"index": index, **text, "logprobs": None, "finish_reason": finish_reason}

    def _whole_choice(self, index: int) -> dict[str, Any]:
        content, reasoning = ("".join(self.texts.get((index, name), ())) for name in ("content", "reasoning"))
        finish_reason = self.done[index].finish_reason
        if self.endpoint == "text":
            return self._choice(index, finish_reason, text=content)
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        message |= {"reasoning": reasoning or None, "reasoning_content": reasoning or None}
        return self._choice(index, finish_reason, message=message)

    def _usage(self) -> dict[str, Any]:
        ends = list(self.done.values())
        completion = sum(end.stats.num_tokens for end in ends)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion,
            "total_tokens": self.prompt_tokens + completion,
            "completion_tokens_details": {"reasoning_tokens": sum(end.reasoning_tokens for end in ends)},
        }

    def _metrics(self) -> dict[str, Any]:
        """What speculation did, over all outputs."""
        ends = [self.done[choice] for choice in sorted(self.done)]
        accepted = sum(end.stats.segments_accepted for end in ends)
        rejected = sum(end.stats.segments_rejected for end in ends)
        drafted = sum(end.stats.drafted_tokens for end in ends)
        kept = sum(end.stats.draft_tokens for end in ends)
        semantic: dict[str, Any] = {
            "num_segments_accepted": accepted,
            "num_segments_rejected": rejected,
            "segment_acceptance_rate": _share(accepted, accepted + rejected),
            "draft_token_share": _share(kept, sum(end.stats.num_tokens for end in ends)),
            "lossy": any(end.lossy for end in ends),
            "seconds": {
                phase: round(sum(getattr(end.stats, f"{phase}_s") for end in ends), 6)
                for phase in ("draft", "verify", "rewrite", "probe", "wall")
            },
        }
        if self.tells_segments:
            semantic["segments"] = [
                {"choice": end.choice} | asdict(segment) for end in ends for segment in end.segments
            ]
        return {
            "speculative_decoding": {
                "num_spec_steps": accepted + rejected,
                "num_draft_tokens": drafted,
                "num_accepted_draft_tokens": kept,
                "draft_acceptance_rate": _share(kept, drafted),
            },
            "semantic": semantic,
        }


def _delta(piece: ChannelPiece) -> dict[str, str]:
    """Thinking has two names among clients; both get it."""
    if piece.channel == "reasoning":
        return {"reasoning": piece.text, "reasoning_content": piece.text}
    return {"content": piece.text}


def _told(event: SegmentDrafted | SegmentDecided) -> dict[str, Any]:
    if isinstance(event, SegmentDrafted):
        return {"drafted": {"text": event.text, "num_tokens": event.num_tokens}}
    return {"decided": asdict(event.segment) | {"num_kept": event.num_kept}}


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
