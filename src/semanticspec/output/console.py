"""Messages and tables in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


def messages() -> Console:
    """Where notes, warnings and statistics go: standard error, so that a pipe gets the text alone."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


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
