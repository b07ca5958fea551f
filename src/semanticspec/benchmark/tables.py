"""The columns of a comparison, and tables of them for the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from semanticspec.benchmark.costs import TARGETS
from semanticspec.output.console import TableSection

MIN_PROBLEMS = 5
"""With fewer problems no intervals are shown: that of a difference would span more than half of what is possible."""

Figures = Mapping[str, Any]
"""The figures of one method, see `summarize`."""


Columns = Mapping[str, Callable[[Figures], str]]
"""Cells by heading: "value", "value [low, high]", or "" where a method has no such figure."""


def interval(bounds: Sequence[float], digits: str, factor: float = 1.0) -> str:
    """Formats an interval."""
    low, high = (format(factor * bound, digits) for bound in bounds)
    return f"[{low}, {high}]"


def interval_of(figures: Figures, name: str, digits: str, factor: float = 1.0) -> str:
    """Formats the interval of a figure, with a space before it; "" for so few problems that it would say nothing."""
    if figures["problems"] < MIN_PROBLEMS:
        return ""
    return f" {interval(figures[name], digits, factor)}"


def per_token(figures: Figures) -> Figures:
    """Returns the figures with `speedup_per_token`, from the speed-up and the lengths where the summary has none.

    Summaries of earlier versions lack it. The computed value has no interval.
    """
    if "speedup_per_token" in figures or figures.get("length_ratio") is None:
        return figures
    value = figures["speedup"] * figures["length_ratio"]
    return {**figures, "speedup_per_token": value, "speedup_per_token_ci95": (value, value)}


def _ratio(name: str) -> Callable[[Figures], str]:
    """A ratio with its interval; without it for few problems, a single block, and the baseline itself."""

    def cell(figures: Figures) -> str:
        if figures.get(name) is None:
            return ""
        low, high = figures[f"{name}_ci95"]
        if low == high:
            return "1" if figures[name] == 1 else f"{figures[name]:.2f}"
        return f"{figures[name]:.2f}" + interval_of(figures, f"{name}_ci95", ".2f")

    return cell


def _points(name: str) -> Callable[[Figures], str]:
    """A difference of accuracies in percentage points; empty for a method compared with itself."""

    def cell(figures: Figures) -> str:
        if name not in figures or figures[f"{name}_ci95"][0] == figures[f"{name}_ci95"][1]:
            return ""
        return f"{100 * figures[name]:+.1f}" + interval_of(figures, f"{name}_ci95", "+.1f", 100)

    return cell


def _number(name: str, digits: str, factor: float = 1.0) -> Callable[[Figures], str]:
    return lambda figures: "" if figures.get(name) is None else format(factor * figures[name], digits)


def _latency(name: str) -> Callable[[Figures], str]:
    return lambda figures: f"{figures['latency_s'][name]:.2f}"


COLUMNS: Columns = {
    "accuracy, %": lambda f: f"{100 * f['accuracy']:.1f}" + interval_of(f, "accuracy_ci95", ".1f", 100),
    "vs target, pp": _points("accuracy_diff"),
    "vs semantic, pp": _points("accuracy_diff_to_semantic"),
    "speed-up, s/request": _ratio("speedup"),
    "speed-up, s/token": lambda f: _ratio("speedup_per_token")(per_token(f)),
    "of limit": _number("limit_share", ".0%"),
    "s/request": lambda f: f"{f['wall_s'] / f['requests']:.3f}",
    "ms/token": _number("seconds_per_token", ".2f", 1000),
    "by draft": _number("draft_token_share", ".1%"),
    "accepted": _number("segment_acceptance_rate", ".1%"),
    "length": _number("length_ratio", ".2f"),
    "overhead": _number("overhead_share", ".1%"),
    "truncated": _number("truncated_share", ".1%"),
    "failed": _number("failed_share", ".1%"),
}
THROUGHPUT: Columns = {
    "requests/min": _number("requests_per_s", ".1f", 60),
    "tokens/s": _number("tokens_per_s", ".1f"),
    "throughput vs target": _ratio("throughput_ratio"),
    **{f"latency {name}, s": _latency(name) for name in ("p50", "p90", "p99")},
}
_NOT_IN_TERMINAL = ("of limit",)
_IN_MARKDOWN = (
    "accuracy, %",
    "vs target, pp",
    "speed-up, s/request",
    "speed-up, s/token",
    "of limit",
    "by draft",
    "length",
    "truncated",
)
_MAX_NAMED = 5
_FOR_CONTROL = "vs semantic, pp"


def filled_columns(methods: Mapping[str, Figures]) -> Columns:
    """Returns the columns in which a method has something to show.

    The difference to `semantic` is for the random control, and is left out without it.
    """
    controlled = any(name.startswith("random") for name in methods)
    return {
        heading: cell
        for heading, cell in COLUMNS.items()
        if {cell(figures) for figures in methods.values()} - {"", "0.0%"}
        and (controlled or heading != _FOR_CONTROL)
    }


def cells(columns: Columns, methods: Mapping[str, Figures]) -> dict[str, list[str]]:
    """Returns the cells of each method."""
    return {name: [cell(figures) for cell in columns.values()] for name, figures in methods.items()}


def comparison_table(methods: Mapping[str, Figures], title: str) -> TableSection:
    """Returns a table for the terminal, one method per line."""
    columns = {name: cell for name, cell in filled_columns(methods).items() if name not in _NOT_IN_TERMINAL}
    return TableSection(title, _caption(methods), list(columns), cells(columns, methods))


def _caption(methods: Mapping[str, Figures]) -> str:
    """Explains the headings of a comparison, and names the outputs that were cut off."""
    notes = ["pp: percentage points", "speed-up: by seconds a request, and by seconds a token"]
    few = min((figures["problems"] for figures in methods.values()), default=0) < MIN_PROBLEMS
    notes.insert(0, f"no intervals below {MIN_PROBLEMS} problems" if few else "in brackets: 95 % intervals")
    return "; ".join([*notes, *truncated_notes(methods)])


def throughput_table(methods: Mapping[str, Figures], concurrency: int) -> TableSection:
    """Returns a table for the terminal of throughput and latency."""
    return TableSection(
        f"{concurrency} concurrent requests", "", list(THROUGHPUT), cells(THROUGHPUT, methods)
    )


def truncated_notes(methods: Mapping[str, Figures]) -> list[str]:
    """Returns a note for each method whose outputs were cut off: how many, and of which problems."""
    notes = []
    for name, figures in methods.items():
        count = round(figures["truncated_share"] * figures["requests"])
        if not count:
            continue
        named = figures.get("truncated_problems", [])
        listed = ", ".join(named[:_MAX_NAMED]) + (", ..." if len(named) > _MAX_NAMED else "")
        notes.append(
            f"{name}: {count} of {figures['requests']} outputs cut off" + f" ({listed})" * bool(named)
        )
    return notes


def markdown_comparison(methods: Mapping[str, Figures], described: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the main figures in Markdown.

    Args:
        described: the methods of the configuration, which say whether a method is lossy.
    """
    columns = {name: COLUMNS[name] for name in _IN_MARKDOWN}
    rows = []
    for name, row in cells(columns, methods).items():
        lossy = described.get(name, {}).get("lossy")
        kind = "" if lossy is None or name == TARGETS[0] else "lossy" if lossy else "lossless"
        rows.append([f"`{name}`", kind, *row])
    return _markdown(["method", "", *columns], rows)


def markdown_throughput(by_concurrency: Mapping[int, Mapping[str, Figures]]) -> str:
    """Returns throughput and latency at each concurrency in Markdown.

    Requests that run one at a time have no blocks; the ratio of their throughputs is the speed-up.
    """
    rows = []
    for concurrency, methods in sorted(by_concurrency.items()):
        for name, figures in methods.items():
            if "requests_per_s" not in figures:
                continue
            if concurrency == 1 and "speedup" in figures:
                speedup = {
                    "throughput_ratio": figures["speedup"],
                    "throughput_ratio_ci95": figures["speedup_ci95"],
                }
                figures = {**figures, **speedup}
            rows.append([str(concurrency), f"`{name}`", *(cell(figures) for cell in THROUGHPUT.values())])
    return _markdown(["concurrency", "method", *THROUGHPUT], rows)


def _markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)]) + "\n"
