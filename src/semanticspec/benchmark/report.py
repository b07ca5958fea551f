"""Summary, pictures and page of a benchmark, from its rows: the same rows give the same files."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from semanticspec.benchmark.charts import draw_all, throughput
from semanticspec.benchmark.costs import Costs, lost_seconds, verifying_methods
from semanticspec.benchmark.folder import SUMMARY_FILE, BenchFolder
from semanticspec.benchmark.rows import Row
from semanticspec.benchmark.summary import BASELINES, PROPOSED, Comparison, summary_json
from semanticspec.errors import BenchmarkError
from semanticspec.output.files import write_atomically
from semanticspec.output.pages import TableSection, Tile, check_report_libraries, draw, render_page

REPORT_FILE, TABLE_FILE = "report.html", "table.md"
METHOD = (
    "Every request counts, right or wrong, cut off or failed; only problems that every method has finished are "
    "compared. Seconds: whole wall clock of a request, from empty caches, methods taking turns problem by problem. "
    "Speed-up: seconds of the faster of target and hf-target, summed over all problems, over the method's; a failed "
    "request is charged the baseline's seconds on top of its own. Seconds per token, the ratio of lengths and the "
    "share cut off stand beside it, since a method that changes the output can look fast by stopping early. In "
    "brackets: 95 % intervals over problems, all samples of a problem together: of speed-ups by bootstrap, of "
    "accuracies Wilson's, of their paired differences Bonett and Price's. Random: accepts at the rates that the "
    "semantic rule had on other problems, by segment length. Limit: every drafted segment accepted, at the target's "
    "lengths and without overhead, from the costs measured in this run."
)
COLUMNS: tuple[tuple[str, Callable[[Mapping[str, Any]], str]], ...] = (
    ("accuracy", lambda f: f"{f['accuracy']:.1%} {interval(f['accuracy_ci95'], '.1f', 100)}"),
    ("to target, points", lambda f: paired(f, "accuracy_diff")),
    ("speed-up", lambda f: ratio(f)),
    ("s a request", lambda f: f"{f['wall_s'] / f['requests']:.3f}"),
    ("ms a token", lambda f: f"{1000 * f['seconds_per_token']:.2f}" if f["seconds_per_token"] else ""),
    ("length", lambda f: f"{f['length_ratio']:.2f}×" if f.get("length_ratio") else ""),
    ("cut off", lambda f: f"{f['truncated_share']:.1%}"),
    ("failed", lambda f: f"{f['failed_share']:.1%}"),
    ("by the draft", lambda f: f"{f['draft_token_share']:.1%}"),
    ("segments kept", lambda f: share(f["segment_acceptance_rate"])),
    ("overhead", lambda f: f"{f['overhead_share']:.1%}"),
    ("of the limit", lambda f: share(f.get("limit_share"))),
)
AT_ONCE: tuple[tuple[str, Callable[[Mapping[str, Any]], str]], ...] = (
    ("requests a minute", lambda f: f"{60 * f['requests_per_s']:.1f}"),
    ("tokens a second", lambda f: f"{f['tokens_per_s']:.1f}"),
    ("throughput to the target's", lambda f: ratio(f, "throughput_ratio")),
    *(
        (f"latency {name}, s", lambda f, name=name: f"{f['latency_s'][name]:.2f}")
        for name in ("p50", "p90", "p99")
    ),
)
"""Columns of what was done by several requests at once."""


def check_plotting() -> None:
    """Raises ConfigError if a library for reports is missing, before anything is computed."""
    check_report_libraries("bench")


def write_report(
    folder: BenchFolder, config: Mapping[str, Any], rows: Sequence[Row], methods: Sequence[str]
) -> Path | None:
    """Writes `summary.json`, the pictures (for light pages) and `report.html`.

    Returns:
        The page; None if no problem is finished by every method.
    """
    comparison = Comparison(rows, methods)
    if not comparison.cells:
        return None
    task, pair = config["run"]["task"], config["run"]["pair_name"]
    extent = {
        "samples": config["samples"],
        "asked_problems": config["problems"],
        "concurrency": config["run"].get("concurrency", 1),
    }
    summary = summary_json(comparison, task, pair, extent)
    pictures = draw_all(comparison, summary["methods"])
    folder.write_summary(summary)
    write_atomically(folder.path / TABLE_FILE, markdown_table(summary["methods"], config["methods"]).encode())
    for name, themes in pictures.items():
        write_atomically(folder.path / f"{name}.png", themes["light"])
    page = render_page(
        title=f"Benchmark: {task}, pair {pair}",
        lead=_lead(comparison),
        tiles=_tiles(summary),
        figures=pictures,
        tables=_tables(comparison, summary),
        method=METHOD,
        made=config,
    )
    write_atomically(folder.path / REPORT_FILE, page.encode())
    return folder.path / REPORT_FILE


def markdown_table(
    methods: Mapping[str, Mapping[str, Any]], described: Mapping[str, Mapping[str, Any]]
) -> str:
    """The main figures as a table in Markdown. `described`: the methods of the configuration, lossy or not."""
    columns: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "accuracy, %": lambda f: f"{100 * f['accuracy']:.1f} {interval(f['accuracy_ci95'], '.1f', 100)}",
        "to target, points": lambda f: paired(f, "accuracy_diff"),
        "speed-up": ratio,
        "of the limit": lambda f: f"{f['limit_share']:.0%}" if "limit_share" in f else "",
        "by the draft": lambda f: f"{f['draft_token_share']:.0%}",
        "length": lambda f: f"{f['length_ratio']:.2f}" if f.get("length_ratio") else "",
        "cut off": lambda f: f"{f['truncated_share']:.1%}",
    }
    lines = [f"| method | | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    for name, figures in methods.items():
        lossy = described.get(name, {}).get("lossy")
        kind = "" if lossy is None or name in BASELINES[:1] else "lossy" if lossy else "lossless"
        cells = " | ".join(cell(figures) for cell in columns.values())
        lines.append(f"| `{name}` | {kind} | {cells} |")
    return "\n".join(lines) + "\n"


def compare_throughput(folders: Sequence[BenchFolder], path: Path) -> Path:
    """Writes what was done in a second over how many requests ran at once, from the folders' summaries.

    Returns:
        The picture's file, in the folder `path`; beside it lies the table, `throughput.md`.
    """
    summaries = [read_summary(folder) for folder in folders]
    figures = {summary["concurrency"]: summary["methods"] for summary in summaries}
    file = path / "throughput.png"
    write_atomically(file, draw(throughput(figures), (7.4, 4.4))["light"])
    write_atomically(file.with_suffix(".md"), _throughput_table(figures).encode())
    return file


def _throughput_table(figures: Mapping[int, Mapping[str, Mapping[str, Any]]]) -> str:
    """One request at a time has no blocks: there the ratio of throughputs is the speed-up."""
    lines = [
        f"| at once | method | {' | '.join(name for name, _ in AT_ONCE)} |",
        "|---" * (len(AT_ONCE) + 2) + "|",
    ]
    for at_once, methods in sorted(figures.items()):
        for name, own in methods.items():
            if "requests_per_s" not in own:
                continue
            if at_once == 1 and "speedup" in own:
                own = {
                    **own,
                    "throughput_ratio": own["speedup"],
                    "throughput_ratio_ci95": own["speedup_ci95"],
                }
            cells = " | ".join(cell(own) for _, cell in AT_ONCE)
            lines.append(f"| {at_once} | `{name}` | {cells} |")
    return "\n".join(lines) + "\n"


def print_summary(folder: BenchFolder) -> None:
    """The table of `summary.json`, in the terminal."""
    from semanticspec.output.console import comparison_table, plain_table, print_table

    summary = read_summary(folder)
    title = f"{summary['task']}, {summary['pair']}: {summary['problems']} problems, {summary['requests']} requests each"
    print_table(comparison_table(summary["methods"], title))
    if summary.get("concurrency", 1) > 1:
        cells = {name: [cell(own) for _, cell in AT_ONCE] for name, own in summary["methods"].items()}
        print_table(
            plain_table(f"{summary['concurrency']} requests at once", [name for name, _ in AT_ONCE], cells)
        )
    if summary["costs"]:
        Console(soft_wrap=True, highlight=False).print(limit_text(summary))


def read_summary(folder: BenchFolder) -> dict[str, Any]:
    """What `write_report` wrote into `summary.json`.

    Raises:
        BenchmarkError: it cannot be read.
    """
    path = folder.path / SUMMARY_FILE
    try:
        summary: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{path} cannot be read: {error}") from error
    return summary


def limit_text(summary: Mapping[str, Any]) -> str:
    """The limit and how much of it the methods reach, in a sentence or two."""
    costs = Costs(**summary["costs"])
    reached = [
        f"{name} reaches {figures['limit_share']:.0%}"
        for name, figures in summary["methods"].items()
        if "limit_share" in figures
    ]
    return (
        f"A token costs {1000 * costs.drafted_token_s:.2f} ms to draft, {1000 * costs.verified_token_s:.2f} ms to "
        f"verify (and a segment {1000 * costs.verified_segment_s:.1f} ms), {1000 * costs.target_token_s:.2f} ms for "
        f"the target to write. With every drafted segment accepted the speed-up would be {costs.limit_speedup:.2f}; "
        f"{', '.join(reached)} of it."
    )


def interval(bounds: Sequence[float], digits: str, factor: float = 1.0) -> str:
    low, high = (format(factor * bound, digits) for bound in bounds)
    return f"[{low}, {high}]"


def ratio(figures: Mapping[str, Any], name: str = "speedup") -> str:
    """A ratio with its interval, which a single problem or block does not give; 1 for what it is measured against."""
    if name not in figures:
        return ""
    low, high = figures[f"{name}_ci95"]
    if low == high:
        return "1" if figures[name] == 1 else f"{figures[name]:.2f}"
    return f"{figures[name]:.2f} {interval((low, high), '.2f')}"


def paired(figures: Mapping[str, Any], name: str) -> str:
    """A difference of accuracies in points; nothing for a method beside itself."""
    if name not in figures or figures[f"{name}_ci95"][0] == figures[f"{name}_ci95"][1]:
        return ""
    return f"{100 * figures[name]:+.1f} {interval(figures[f'{name}_ci95'], '+.1f', 100)}"


def share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _lead(comparison: Comparison) -> str:
    requests = len(comparison.cells)
    samples = f" ({requests} requests)" if requests != comparison.num_problems else ""
    names = ", ".join(comparison.rows)
    return f"{comparison.num_problems} problems{samples}, each solved by every method: {names}."


def _tiles(summary: Mapping[str, Any]) -> list[Tile]:
    """The figures of the semantic rule, or of the first method that has a limit."""
    methods = summary["methods"]
    name = (
        PROPOSED if PROPOSED in methods else next((n for n in methods if "limit_share" in methods[n]), None)
    )
    if name is None or "speedup" not in methods[name]:
        return []
    own = methods[name]
    tiles = [
        Tile(f"{own['speedup']:.2f}×", f"speed-up of {name}", interval(own["speedup_ci95"], ".2f")),
        Tile(f"{own['accuracy']:.1%}", f"accuracy of {name}", interval(own["accuracy_ci95"], ".1f", 100)),
        Tile(
            f"{100 * own['accuracy_diff']:+.1f}",
            "points to the target",
            interval(own["accuracy_diff_ci95"], "+.1f", 100),
        ),
        Tile(f"{own['draft_token_share']:.1%}", "of the output by the draft"),
    ]
    if "limit_share" in own:
        limit = f"limit {own['limit_speedup']:.2f}×"
        tiles.append(Tile(f"{own['limit_share']:.0%}", "of the speed-up with everything accepted", limit))
    return tiles


def _tables(comparison: Comparison, summary: Mapping[str, Any]) -> list[TableSection]:
    methods = summary["methods"]
    rows = {name: [cell(own) for _, cell in COLUMNS] for name, own in methods.items()}
    caption = f"Speed-up against {summary['baseline']}, the faster of target and hf-target in this run."
    tables = [
        TableSection("Methods", caption if summary["baseline"] else "", [name for name, _ in COLUMNS], rows)
    ]
    if comparison.concurrent:
        cells = {name: [cell(own) for _, cell in AT_ONCE] for name, own in methods.items()}
        caption = (
            f"{summary['concurrency']} requests of a method ran at once, in blocks; methods took turns block by block. "
            "The interval is over blocks. Latency is the whole of a request, from its own start."
        )
        tables.append(TableSection("Several requests at once", caption, [name for name, _ in AT_ONCE], cells))
    costs = comparison.costs()
    if costs is None:
        return tables
    measured = {
        "one drafted token": [f"{1000 * costs.drafted_token_s:.3f}"],
        "one verified token": [f"{1000 * costs.verified_token_s:.3f}"],
        "one segment's verification, besides its tokens": [f"{1000 * costs.verified_segment_s:.3f}"],
        "one token written by the target": [f"{1000 * costs.target_token_s:.3f}"],
    }
    drafting, target = costs.measured_on
    caption = (
        f"Measured on {drafting} and {target}; segments of {costs.segment_tokens:.1f} tokens on average, "
        f"{costs.answer_share:.1%} of the target's output is the answer it writes itself. {limit_text(summary)}"
    )
    tables.append(TableSection("Costs and limit", caption, ["milliseconds"], measured))
    # What a optimization saves has no place among these terms.
    plain = [name for name in verifying_methods(comparison.rows) if "+" not in name]
    lost = {name: lost_seconds(comparison.rows[name], costs) for name in plain}
    requests = len(comparison.cells)
    cells = {
        name: [f"{seconds / requests:.3f}" for seconds in terms.values()] for name, terms in lost.items()
    }
    caption = (
        "Seconds a request. Drafts kept and the answer are what the limit allows for; the rest is lost to rejections "
        "and overhead."
    )
    tables.append(TableSection("What is lost", caption, list(next(iter(lost.values()))), cells))
    return tables
