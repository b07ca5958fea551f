"""Summary, tables, pictures and page of a benchmark, from its rows. The same rows give the same files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from semanticspec.benchmark import tables
from semanticspec.benchmark.charts import WIDE, draw_all, throughput
from semanticspec.benchmark.costs import Costs, split_seconds, verifying_methods
from semanticspec.benchmark.folder import SUMMARY_FILE, BenchConfig, BenchFolder
from semanticspec.benchmark.rows import Row
from semanticspec.benchmark.summary import PROPOSED, Comparison, summary_json
from semanticspec.errors import BenchmarkError
from semanticspec.output.console import TableSection, print_table
from semanticspec.output.files import write_atomically
from semanticspec.output.pages import Tile, check_report_libraries, draw, render_page

REPORT_FILE, TABLE_FILE = "report.html", "table.md"
METHOD = (
    "All requests count: right, wrong, truncated and failed ones. Only problems that every method has finished are "
    "compared. Methods take turns problem by problem, and every request starts with empty caches. Speed-up by seconds "
    "a request: wall-clock seconds of the faster of target and hf-target, summed over problems, divided by those of "
    "the method; a failed request is charged the baseline's seconds on top of its own. Speed-up by seconds a token: "
    "the same ratio of seconds per output token. They differ where a method writes shorter outputs, as a lossy rule "
    "may: it keeps the draft's steps, and a draft can leave out steps or end sooner. Length: output tokens relative "
    "to the target's. Truncated: outputs cut off at the limit, whose seconds and tokens count as they are. Brackets: "
    "95 % intervals over problems, with all samples of a problem together: percentile bootstrap for ratios, Wilson "
    "for accuracies, Bonett and Price for paired differences of accuracies (pp: percentage points). Random: accepts "
    "segments at the rates of the semantic rule on other problems, by segment length. Limit: the speed-up with every "
    "drafted segment accepted, at the target's lengths and without overhead, from the costs measured in this run."
)


def check_libraries() -> None:
    """Raises ConfigError if a library for reports is missing, before anything is computed."""
    check_report_libraries("bench")


def write_report(
    folder: BenchFolder, config: BenchConfig, rows: Sequence[Row], methods: Sequence[str]
) -> Path | None:
    """Writes `summary.json`, `table.md`, the pictures for light pages, and `report.html`.

    Returns:
        The path of the page; None if no problem is finished by every method.
    """
    comparison = Comparison(rows, methods)
    if not comparison.requests:
        return None
    run = config["run"]
    summary = {
        "task": run["task"],
        "pair": run["pair_name"],
        **summary_json(comparison),
        "samples": config["samples"],
        "asked_problems": config["problems"],
        "concurrency": run.get("concurrency", 1),
    }
    pictures = draw_all(comparison, summary["methods"])
    folder.write_summary(summary)
    table = tables.markdown_comparison(summary["methods"], config["methods"])
    write_atomically(folder.path / TABLE_FILE, table.encode())
    for name, themes in pictures.items():
        write_atomically(folder.path / f"{name}.png", themes["light"])
    page = render_page(
        title=f"Benchmark: {run['task']}, pair {run['pair_name']}",
        lead=_lead(comparison),
        tiles=_tiles(summary["methods"]),
        figures=pictures,
        tables=_sections(comparison, summary),
        method=METHOD,
        made=config,
    )
    write_atomically(folder.path / REPORT_FILE, page.encode())
    return folder.path / REPORT_FILE


def write_throughput(folders: Sequence[BenchFolder], path: Path) -> Path:
    """Compares the summaries of folders that differ in concurrency.

    Returns:
        The path of the picture in the folder `path`; the table is next to it, `throughput.md`.
    """
    summaries = [read_summary(folder) for folder in folders]
    methods = {summary["concurrency"]: summary["methods"] for summary in summaries}
    picture = path / "throughput.png"
    write_atomically(picture, draw(throughput(methods), WIDE)["light"])
    write_atomically(picture.with_suffix(".md"), tables.markdown_throughput(methods).encode())
    return picture


def print_summary(folder: BenchFolder) -> None:
    """Prints the tables of `summary.json`."""
    summary = read_summary(folder)
    methods, concurrency = summary["methods"], summary.get("concurrency", 1)
    title = f"{summary['task']}, {summary['pair']}: {summary['problems']} problems, {summary['requests']} requests each"
    print_table(tables.comparison_table(methods, title))
    if concurrency > 1:
        print_table(tables.throughput_table(methods, concurrency))
    if summary["costs"]:
        Console(soft_wrap=True, highlight=False).print(costs_text(summary))


def read_summary(folder: BenchFolder) -> dict[str, Any]:
    """Reads `summary.json`.

    Raises:
        BenchmarkError: it cannot be read.
    """
    path = folder.path / SUMMARY_FILE
    try:
        summary: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"cannot read {path}: {error}; run `semanticspec bench report`") from error
    return summary


def costs_text(summary: Mapping[str, Any]) -> str:
    """Describes the costs, the limit, and how much of it the methods reach."""
    costs = Costs(**summary["costs"])
    reached = [
        f"{name} reaches {figures['limit_share']:.0%}"
        for name, figures in summary["methods"].items()
        if "limit_share" in figures
    ]
    return (
        f"Costs: {1000 * costs.drafted_token_s:.2f} ms per drafted token, {1000 * costs.verified_token_s:.2f} ms per "
        f"verified token plus {1000 * costs.verified_segment_s:.1f} ms per segment, {1000 * costs.target_token_s:.2f} "
        f"ms per token decoded by the target. With every drafted segment accepted, the speed-up would be "
        f"{costs.limit_speedup:.2f}; {', '.join(reached)} of it."
    )


def _lead(comparison: Comparison) -> str:
    requests, problems = len(comparison.requests), comparison.num_problems
    samples = f" ({requests} requests)" if requests != problems else ""
    return f"{problems} problems{samples}, each solved by every method: {', '.join(comparison.rows)}."


def _tiles(methods: Mapping[str, Mapping[str, Any]]) -> list[Tile]:
    """The main figures of the semantic rule, or else of the first method that has a limit."""
    limited = (name for name, figures in methods.items() if "limit_share" in figures)
    name = PROPOSED if PROPOSED in methods else next(limited, None)
    if name is None or "speedup" not in methods[name]:
        return []
    own = methods[name]
    tiles = [
        Tile(
            f"{own['speedup']:.2f}×",
            f"speed-up of {name}, by seconds a request",
            tables.interval_of(own, "speedup_ci95", ".2f"),
        ),
        *_per_token_tile(tables.per_token(own)),
        Tile(
            f"{own['accuracy']:.1%}",
            f"accuracy of {name}",
            tables.interval_of(own, "accuracy_ci95", ".1f", 100),
        ),
        Tile(
            f"{100 * own['accuracy_diff']:+.1f}",
            "percentage points vs target",
            tables.interval_of(own, "accuracy_diff_ci95", "+.1f", 100),
        ),
        Tile(f"{own['draft_token_share']:.1%}", "of the output written by the draft"),
    ]
    if "limit_share" in own:
        limit = f"limit {own['limit_speedup']:.2f}×"
        tiles.append(
            Tile(f"{own['limit_share']:.0%}", "of the speed-up if all segments were accepted", limit)
        )
    return tiles


def _per_token_tile(own: tables.Figures) -> list[Tile]:
    if "speedup_per_token" not in own:
        return []
    return [
        Tile(
            f"{own['speedup_per_token']:.2f}×",
            "speed-up by seconds a token",
            tables.interval_of(own, "speedup_per_token_ci95", ".2f"),
        )
    ]


def _sections(comparison: Comparison, summary: Mapping[str, Any]) -> list[TableSection]:
    methods, baseline = summary["methods"], summary["baseline"]
    caption = f"Speed-up relative to {baseline}, the faster of target and hf-target." if baseline else ""
    caption = " ".join([caption, *(f"{note}." for note in tables.truncated_notes(methods))]).strip()
    sections = [_section("Methods", caption, tables.filled_columns(methods), methods)]
    if comparison.concurrent:
        caption = (
            f"{summary['concurrency']} requests of a method ran concurrently, in blocks; methods took turns block by "
            "block. Intervals are over blocks. Latency is the wall-clock time of one request."
        )
        sections.append(_section("Concurrent requests", caption, tables.THROUGHPUT, methods))
    costs = comparison.costs()
    return sections if costs is None else [*sections, *_cost_sections(comparison, costs, summary)]


def _cost_sections(comparison: Comparison, costs: Costs, summary: Mapping[str, Any]) -> list[TableSection]:
    drafting, target = costs.measured_on
    caption = (
        f"Measured on {drafting} and {target}. Segments have {costs.segment_tokens:.1f} tokens on average; "
        f"{costs.answer_share:.1%} of the target's output is the answer, which the target decodes itself. "
        f"{costs_text(summary)}"
    )
    milliseconds = {
        "drafted token": [f"{1000 * costs.drafted_token_s:.3f}"],
        "verified token": [f"{1000 * costs.verified_token_s:.3f}"],
        "verified segment, in addition to its tokens": [f"{1000 * costs.verified_segment_s:.3f}"],
        "token decoded by the target": [f"{1000 * costs.target_token_s:.3f}"],
    }
    sections = [TableSection("Costs and limit", caption, ["milliseconds"], milliseconds)]
    # The split assumes that the target decodes token by token, which optimizations change.
    lost = {
        name: split_seconds(comparison.rows[name], costs)
        for name in verifying_methods(comparison.rows)
        if "+" not in name
    }
    if lost:
        caption = (
            "Seconds per request. The limit allows for accepted drafts and the answer; the rest is lost to rejections "
            "and overhead. Methods with optimizations are left out: their target does not decode token by token."
        )
        requests = len(comparison.requests)
        rows = {name: [f"{value / requests:.3f}" for value in parts.values()] for name, parts in lost.items()}
        sections.append(TableSection("Where time is lost", caption, list(next(iter(lost.values()))), rows))
    return sections


def _section(
    title: str, caption: str, columns: tables.Columns, methods: Mapping[str, tables.Figures]
) -> TableSection:
    return TableSection(title, caption, list(columns), tables.cells(columns, methods))
