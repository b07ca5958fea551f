"""Prints a request in the terminal: its text as it is decided, its statistics, or one JSON object."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from rich.console import Console
from rich.text import Text

from semanticspec import __version__
from semanticspec.config import DecodingConfig
from semanticspec.decoding.pair import Pair
from semanticspec.records import Event, Finished, Result, SegmentDecided, TextWritten

AUTHOR_STYLE = {"draft": "green", "target": "cyan"}
REJECTED_STYLE = "dim strike red"


class RequestView:
    """Prints the text of a request from its events, colored by author."""

    def __init__(self, *, stream: bool) -> None:
        """Creates a view.

        Args:
            stream: print text as soon as it is decided; otherwise all of it when the request has finished.
        """
        self._out = Console(highlight=False, soft_wrap=True)
        self._stream = stream
        self._rejected = ""  # a rejected segment whose kept prefix is still to come

    def show(self, event: Event) -> None:
        """Prints the text that an event adds. Rejected segments are shown in a terminal only."""
        if isinstance(event, TextWritten) and self._stream:
            self._print(event.text, AUTHOR_STYLE[event.author])
            if self._rejected.startswith(event.text):
                self._print(self._rejected.removeprefix(event.text), REJECTED_STYLE)
            self._rejected = ""
        elif isinstance(event, SegmentDecided) and self._stream and self._out.is_terminal:
            if event.segment.accepted is False and event.num_kept == 0:
                self._print(event.segment.text, REJECTED_STYLE)
            elif event.segment.accepted is False:
                self._rejected = event.segment.text
        elif isinstance(event, Finished):
            if not self._stream:
                for segment in event.result.segments:
                    if segment.accepted is not False:
                        self._print(segment.text, AUTHOR_STYLE[segment.author])
            self._print("\n", "")

    def _print(self, text: str, style: str) -> None:
        self._out.print(Text(text, style=style), end="")
        sys.stdout.flush()


def closing_line(result: Result) -> str:
    """Returns one line of statistics."""
    stats = result.stats
    judged = stats.segments_accepted + stats.segments_rejected
    parts = [f"{stats.num_tokens} tokens in {stats.wall_s:.2f} s"]
    if judged:
        parts.append(f"{stats.draft_token_share:.0%} by the draft")
        # Under the rule `token` the draft writes short proposals instead of segments.
        by_token = {segment.reason for segment in result.segments if segment.accepted is not None} == {
            "token"
        }
        noun = "proposals" if by_token else "segments"
        parts.append(f"{stats.segments_accepted} of {judged} {noun} accepted")
        parts.append(
            f"draft {stats.draft_s:.2f} s, verify {stats.verify_s:.2f} s, "
            f"target decoding {stats.rewrite_s:.2f} s, probes {stats.probe_s:.2f} s"
        )
    if result.speculation_ended is not None:
        ended = result.speculation_ended
        parts.append(f"{ended.reason}: the target alone after {ended.num_tokens} tokens")
    parts.append("lossy" if result.lossy else "lossless")
    if result.finish_reason == "length":
        parts.append("truncated at the length limit")
    return " · ".join(parts)


def result_json(result: Result, pair: Pair, config: DecodingConfig) -> str:
    """Returns the object that `--json` prints: the result and what it can be repeated with.

    Args:
        config: as `Pair.resolve` returns it.
    """
    models = {role: model.engine.info for role, model in (("target", pair.target), ("draft", pair.draft))}
    return json.dumps(
        {
            "version": __version__,
            "models": {
                role: {"model": info.model_id, "revision": info.revision} for role, info in models.items()
            },
            "rule": asdict(config.rule) if config.speculate else None,
            "optimizations": config.optimizations,
            "sampling": asdict(config.sampling),
            "max_new_tokens": config.max_new_tokens,
            "seed": config.seed,
            "text": result.text,
            "reasoning": result.reasoning,
            "answer": result.answer,
            "finish_reason": result.finish_reason,
            "lossy": result.lossy,
            "speculation_ended": asdict(result.speculation_ended) if result.speculation_ended else None,
            "segments": [asdict(segment) for segment in result.segments],
            "stats": asdict(result.stats),
        },
        ensure_ascii=False,
        indent=2,
    )
