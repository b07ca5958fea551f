"""What people see in a terminal: a request as it unfolds, and tables of figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from semanticspec.records import Event, Finished, Result, SegmentDecided, Stats, TextWritten

AUTHOR_STYLE = {"draft": "green", "target": "cyan"}
REJECTED_STYLE = "dim strike red"


def messages() -> Console:
    """Where notes, warnings and statistics go: standard error, so that a pipe gets the text alone."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


class RequestView:
    """Prints a request's text as its events come, coloured by author."""

    def __init__(self, *, stream: bool) -> None:
        self._out = Console(highlight=False, soft_wrap=True)
        self._stream = stream

    def show(self, event: Event) -> None:
        """Prints what an event adds."""
        if isinstance(event, TextWritten) and self._stream:
            self._print(event.text, AUTHOR_STYLE[event.author])
        elif isinstance(event, SegmentDecided) and self._stream and self._out.is_terminal:
            if event.segment.accepted is False and event.num_kept == 0:
                self._print(event.segment.text, REJECTED_STYLE)
        elif isinstance(event, Finished):
            if not self._stream:
                self._show_segments(event.result)
            self._print("\n", "")

    def _show_segments(self, result: Result) -> None:
        for segment in result.segments:
            if segment.accepted is not False:
                self._print(segment.text, AUTHOR_STYLE[segment.author])

    def _print(self, text: str, style: str) -> None:
        self._out.print(Text(text, style=style), end="")
        sys.stdout.flush()


def closing_line(result: Result) -> str:
    """One line of statistics."""
    stats = result.stats
    decided = stats.segments_accepted + stats.segments_rejected
    parts = [f"{stats.num_tokens} tokens in {stats.wall_s:.2f} s"]
    if decided:
        parts.append(f"{stats.draft_token_share:.0%} by the draft")
        parts.append(f"{stats.segments_accepted} of {decided} segments kept")
        parts.append(
            f"draft {stats.draft_s:.2f} s, verify {stats.verify_s:.2f} s, "
            f"target writes {stats.rewrite_s:.2f} s, probes {stats.probe_s:.2f} s"
        )
    parts.append("lossy" if result.lossy else "lossless")
    if result.finish_reason == "length":
        parts.append("cut off by the length limit")
    return " · ".join(parts)


def result_json(result: Result) -> str:
    """The object that `--json` prints."""
    return json.dumps(
        {
            "text": result.text,
            "reasoning": result.reasoning,
            "answer": result.answer,
            "finish_reason": result.finish_reason,
            "lossy": result.lossy,
            "segments": [asdict(segment) for segment in result.segments],
            "stats": stats_json(result.stats),
        },
        ensure_ascii=False,
        indent=2,
    )


def stats_json(stats: Stats) -> dict[str, Any]:
    """Counts and seconds by name."""
    return asdict(stats)


def comparison_table(summary: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    """Methods side by side, with intervals."""
    table = Table(title=title, title_justify="left")
    table.add_column("method")
    for heading in (
        "accuracy",
        "vs target, points",
        "speed-up",
        "s a problem",
        "by draft",
        "kept",
        "overhead",
    ):
        table.add_column(heading, justify="right")
    for name, figures in summary.items():
        table.add_row(
            name,
            f"{figures['accuracy']:.1%}",
            _points(figures, "accuracy_diff"),
            _ratio(figures),
            f"{figures['wall_s'] / figures['problems']:.3f}",
            f"{figures['draft_token_share']:.0%}",
            "" if figures["segment_acceptance_rate"] is None else f"{figures['segment_acceptance_rate']:.0%}",
            f"{figures['overhead_share']:.1%}",
        )
    return table


def _points(figures: Mapping[str, Any], name: str) -> str:
    if name not in figures:
        return ""
    low, high = figures[f"{name}_ci95"]
    return f"{100 * figures[name]:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def _ratio(figures: Mapping[str, Any]) -> str:
    if "speedup" not in figures:
        return ""
    low, high = figures["speedup_ci95"]
    return f"{figures['speedup']:.2f}x [{low:.2f}, {high:.2f}]"
