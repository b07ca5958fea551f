"""`semanticspec demo`: problems solved side by side, and the table of what came out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from semanticspec.benchmark.comparison import Row, compare, summarize
from semanticspec.benchmark.demo import PILOT_PROBLEMS, demo_methods, demo_tasks
from semanticspec.benchmark.methods import METHODS
from semanticspec.config import DecodingConfig
from semanticspec.console import comparison_table, messages
from semanticspec.errors import ConfigError
from semanticspec.files import write_atomically
from semanticspec.loading import load_pair

SPLITS = ("test", "validation")


def run_demo(
    config: DecodingConfig,
    names: Sequence[str],
    split: str,
    num_problems: int,
    out: Path | None,
    *,
    quiet: bool,
) -> None:
    """Compares methods on the bundled pair and prints the table. Ctrl-C shows what is done so far.

    Raises:
        ConfigError: an unknown method or split.
    """
    for name in names:
        if name not in METHODS:
            raise ConfigError(f"there is no method {name!r}; choose from {', '.join(METHODS)}")
    if split not in SPLITS:
        raise ConfigError(f"there is no split {split!r}; choose from {', '.join(SPLITS)}")
    pair = load_pair()
    rows: list[Row] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=messages(), transient=True) as progress:
        pilot = progress.add_task(
            "pilot of the random control", total=PILOT_PROBLEMS, visible="random" in names
        )
        methods = demo_methods(names, pair, config, lambda done: progress.update(pilot, completed=done))
        progress.update(pilot, visible=False)
        task = progress.add_task("solving", total=num_problems * len(methods))
        try:
            for row, _ in compare(methods, demo_tasks(split, num_problems)):
                rows.append(row)
                progress.advance(task)
                if not quiet:
                    progress.console.print(_line(row))
        except KeyboardInterrupt:
            messages().print("stopped; the table shows the problems that every method has finished")
    summary = summarize(rows)
    if not summary:
        return
    solved = next(iter(summary.values()))["problems"]
    Console().print(
        comparison_table(summary, f"{solved} unseen {split} problems, bundled pair (semantic: lossy)")
    )
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(
            out, json.dumps({"pair": pair.name, "split": split, "methods": summary}, indent=2).encode()
        )


def _line(row: Row) -> str:
    mark = "[green]right[/]" if row.right else "[red]wrong[/]"
    share = row.draft_tokens / row.num_tokens if row.num_tokens else 0.0
    length = f"{row.num_tokens:4d} tokens, {share:.0%} by the draft"
    return f"{row.problem_id:>10}  {row.method:<14} {mark}  {row.wall_s:6.2f} s  {length}"
