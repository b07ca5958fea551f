"""`semanticspec demo`: problems solved side by side, and the table of what came out. A thin user of the runner."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from semanticspec.benchmark.grading import DemoGrader
from semanticspec.benchmark.methods import Method, check_names, make_method, split_name, with_strictness
from semanticspec.benchmark.rows import Row
from semanticspec.benchmark.runner import Setting, control, pilot, run
from semanticspec.benchmark.summary import summarize
from semanticspec.benchmark.tasks import demo_problems
from semanticspec.config import DecodingConfig
from semanticspec.errors import ConfigError
from semanticspec.loading import load_pair
from semanticspec.output.console import comparison_table, messages, print_table
from semanticspec.output.files import write_atomically
from semanticspec.output.progress import progress_bar

SPLITS = ("test", "validation")
PILOT_PROBLEMS = 60


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
    check_names(names)
    if split not in SPLITS:
        raise ConfigError(f"there is no split {split!r}; choose from {', '.join(SPLITS)}")
    pair = load_pair()
    setting = Setting("demo", pair, DemoGrader(), config.seed)
    rows: list[Row] = []
    try:
        methods = [_method(name, setting, config) for name in names]
        with progress_bar("solving") as (progress, on_total):
            on_total(num_problems * len(methods))
            for row in run(setting, demo_problems(split, num_problems), methods):
                rows.append(row)
                progress("")
                if not quiet:
                    messages().print(_line(row))
    except KeyboardInterrupt:
        messages().print("stopped; the table shows the problems that every method has finished")
    finally:
        asyncio.run(pair.aclose())
    summary = summarize(rows)
    if not summary:
        return
    solved = next(iter(summary.values()))["problems"]
    print_table(
        comparison_table(summary, f"{solved} unseen {split} problems, bundled pair (semantic: lossy)")
    )
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        content = {"pair": pair.name, "split": split, "methods": summary}
        write_atomically(out, json.dumps(content, indent=2).encode())


def _method(name: str, setting: Setting, config: DecodingConfig) -> Method:
    """A method; the random control's rate comes from a pilot on validation problems of another seed."""
    base, strictness = split_name(name)
    if base != "random":
        return make_method(name, setting.pair, config)
    own = with_strictness(config, strictness)
    with progress_bar(f"pilot of {name}") as (progress, on_total):
        on_total(PILOT_PROBLEMS)
        on_solved: Callable[[], None] = lambda: progress("")  # noqa: E731
        rule = pilot(setting, own, demo_problems("validation", PILOT_PROBLEMS, seed=1), on_solved)
    return control(name, setting.pair, own, rule)


def _line(row: Row) -> str:
    mark = "[green]right[/]" if row.right else "[red]wrong[/]"
    share = row.draft_tokens / row.num_tokens if row.num_tokens else 0.0
    length = f"{row.num_tokens:4d} tokens, {share:.0%} by the draft"
    return f"{row.problem_id:>10}  {row.method:<14} {mark}  {row.wall_s:6.2f} s  {length}"
