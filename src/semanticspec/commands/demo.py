"""`semanticspec demo`: compares methods on the bundled pair, problem by problem."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from semanticspec.benchmark.methods import check_names
from semanticspec.benchmark.rows import Row
from semanticspec.benchmark.runner import RunContext, make_calibrated_method, run
from semanticspec.commands.demo_registration import DemoGrader, demo_task_problems
from semanticspec.commands.option_groups import expand_options, option
from semanticspec.commands.options import SamplingOptions, comma_separated, output_option
from semanticspec.config import DecodingConfig, with_optimizations
from semanticspec.errors import ConfigError
from semanticspec.loading import BUNDLED, load_pair
from semanticspec.output.console import messages, print_table
from semanticspec.output.files import check_output_file, write_atomically
from semanticspec.output.progress import progress_bar

SPLITS = ("test", "validation")
DEMO_PILOT_PROBLEMS = 60
"""Problems of the random control's pilot; more than in a benchmark, since they take little time."""


@expand_options(without=["rule", "optimizations", "levers"])
def demo_command(
    sampling: SamplingOptions,
    num_problems: Annotated[int, option("Number of problems to solve.", "--num-problems", "-n", min=1)] = 5,
    methods: Annotated[
        str, option("Comma-separated methods to compare; see `semanticspec bench --help`.")
    ] = "target,semantic,semantic+default",
    split: Annotated[str, option(f"Which problems: {' or '.join(SPLITS)}.")] = "test",
    out: Annotated[Path | None, output_option("Write the results to this JSON file.")] = None,
    quiet: Annotated[bool, output_option("Print the table only, not each answer.")] = False,
) -> None:
    """Solve problems that the bundled pair was not trained on: the target alone next to speculative decoding."""
    config = with_optimizations(sampling.config(), ())  # those of a method are in its name
    if split not in SPLITS:
        raise ConfigError(f"--split is {split!r}; expected {' or '.join(SPLITS)}")
    names = comma_separated(methods, "--methods")
    check_names(names)
    if out is not None:
        check_output_file(out)
    rows = _solve(config, names, split, num_problems, quiet=quiet)
    if rows:
        _report(rows, split, out)


def _solve(
    config: DecodingConfig, names: Sequence[str], split: str, num_problems: int, *, quiet: bool
) -> list[Row]:
    """Solves every problem by every method. Ctrl-C returns what is done so far."""
    pair = load_pair()
    context = RunContext("demo", pair, DemoGrader(), config.seed)
    rows: list[Row] = []
    try:
        pilot = demo_task_problems("validation", DEMO_PILOT_PROBLEMS, seed=1)
        methods = [make_calibrated_method(name, context, config, pilot) for name in names]
        with progress_bar("solving") as (progress, on_total):
            on_total(num_problems * len(methods))
            for row in run(context, demo_task_problems(split, num_problems), methods):
                rows.append(row)
                progress("")
                if not quiet:
                    messages().print(_line(row))
    except KeyboardInterrupt:
        messages().print("interrupted; the table shows the problems that every method has finished")
    finally:
        asyncio.run(pair.aclose())
    return rows


def _report(rows: Sequence[Row], split: str, out: Path | None) -> None:
    """Prints the table, and writes it as JSON if a file is given."""
    from semanticspec.benchmark.summary import Comparison, summarize
    from semanticspec.benchmark.tables import comparison_table

    summary = summarize(Comparison(rows))
    if not summary:
        return
    num_problems = next(iter(summary.values()))["problems"]
    print_table(
        comparison_table(summary, f"{num_problems} unseen {split} problems, bundled pair (semantic: lossy)")
    )
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        content = {"pair": BUNDLED, "split": split, "methods": summary}
        write_atomically(out, json.dumps(content, indent=2).encode())


def _line(row: Row) -> str:
    """Returns one line about an answer."""
    mark = "[green]right[/]" if row.right else "[red]wrong[/]"
    share = row.draft_tokens / row.num_tokens if row.num_tokens else 0.0
    length = f"{row.num_tokens:4d} tokens, {share:.0%} by the draft"
    return f"{row.problem_id:>10}  {row.method:<14} {mark}  {row.wall_s:6.2f} s  {length}"
