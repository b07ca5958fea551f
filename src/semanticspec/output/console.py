"""What people see in a terminal: a request as it unfolds, and tables of figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
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


def print_table(table: Table) -> None:
    """Prints a table on standard output; where the terminal is too narrow lines are broken, figures are not cut."""
    console = Console()
    needed = Console(width=1000).measure(table).maximum
    Console(width=max(console.width, needed)).print(table)


def comparison_table(summary: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    """Methods side by side, one a line; 95 % intervals in brackets. Columns that hold nothing are left out."""
    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "accuracy": lambda f: f"{f['accuracy']:.1%}",
        "speed-up": lambda f: _interval(f, "speedup", ".2f", "x"),
        "vs target": lambda f: _interval(f, "accuracy_diff", "+.1f", " points", 100),
        "vs semantic": lambda f: _interval(f, "accuracy_diff_to_semantic", "+.1f", " points", 100),
        "s each": lambda f: f"{f['wall_s'] / f['requests']:.3f}",
        "drafted": lambda f: f"{f['draft_token_share']:.1%}",
        "kept": lambda f: (
            "" if f["segment_acceptance_rate"] is None else f"{f['segment_acceptance_rate']:.1%}"
        ),
        "length": lambda f: f"{f['length_ratio']:.2f}x" if f.get("length_ratio") else "",
        "overhead": lambda f: f"{f['overhead_share']:.1%}",
        "cut off": lambda f: f"{f['truncated_share']:.1%}" if f["truncated_share"] else "",
        "failed": lambda f: f"{f['failed_share']:.1%}" if f["failed_share"] else "",
    }
    table = Table(
        title=title,
        title_justify="left",
        caption="in brackets: 95 % intervals",
        box=SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    table.add_column("", no_wrap=True)
    if not any(name.startswith("random") for name in summary):  # what the method is to be told from
        del columns["vs semantic"]
    filled = {}
    for heading, cell in columns.items():
        cells = [cell(figures) for figures in summary.values()]
        if any(cells):
            table.add_column(heading, justify="right", no_wrap=True)
            filled[heading] = cells
    for place, name in enumerate(summary):
        table.add_row(name, *(cells[place] for cells in filled.values()))
    return table


def plain_table(title: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> Table:
    """Names and their figures, one a line."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("", no_wrap=True)
    for heading in columns:
        table.add_column(heading, justify="right")
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table


def _interval(figures: Mapping[str, Any], name: str, digits: str, unit: str, factor: float = 1.0) -> str:
    """A figure over its interval; nothing for figures that there are not, or that compare a method to itself."""
    if name not in figures or figures[f"{name}_ci95"][0] == figures[f"{name}_ci95"][1]:
        return ""
    low, high = (format(factor * bound, digits) for bound in figures[f"{name}_ci95"])
    return f"{format(factor * figures[name], digits)}{unit}\n[{low}, {high}]"
