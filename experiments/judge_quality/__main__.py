"""Measures a judge on pairs with a known answer: `python -m experiments.judge_quality --judge numeric`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.console import Console
from rich.table import Table

from semanticspec.commands.main import run
from semanticspec.commands.option_groups import expand_options, option
from semanticspec.commands.options import JudgeName, JudgeOptions
from semanticspec.errors import ConfigError
from semanticspec.training.labels.judges import make_judge

if TYPE_CHECKING:
    from experiments.judge_quality.quality import Quality


@expand_options()
def judge_quality_command(
    options: JudgeOptions,
    judge: JudgeName = "numeric",
    pairs: Annotated[
        str,
        option(
            "demo, the folder of a collection of demo problems, or a JSONL file with a, b and label or same."
        ),
    ] = "demo",
    num_pairs: Annotated[
        int, option("Pairs; half of them are the same (not so in a collection).", min=2)
    ] = 1000,
    least_score: Annotated[
        float, option("Ignore entailments with a lower score (SICK: they may hold in one direction only).")
    ] = 0.0,
    cache: Annotated[Path | None, option("Folder for a model's verdicts; a second run reuses them.")] = None,
    seed: Annotated[int, option("Seeds the choice of pairs and the bootstrap.", min=0)] = 0,
    out: Annotated[Path | None, option("JSON file for the figures.")] = None,
) -> None:
    """Measure a judge on pairs with a known answer: steps of the demo's grammar, or labelled sentences."""
    from experiments.judge_quality.quality import (
        collected_pairs,
        demo_pairs,
        judge_pairs,
        measure,
        read_pairs,
    )
    from semanticspec.output.files import write_atomically

    config = options.config(judge)
    if pairs == "demo":
        known = demo_pairs(num_pairs, seed)
    elif Path(pairs).is_dir():
        known = collected_pairs(Path(pairs), num_pairs, seed)
    else:
        known = read_pairs(Path(pairs), num_pairs, seed, least_score)
    if cache:
        try:
            cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"the folder {cache} cannot be created: {error.strerror}; choose another --cache"
            ) from error
    made = make_judge(config, cache)
    quality = measure(known, judge_pairs(made, known), seed)
    if out:
        report = {"judge": judge, "identity": made.identity, "pairs": pairs, "seed": seed, **asdict(quality)}
        write_atomically(out, (json.dumps({**report, "least_score": least_score}, indent=2) + "\n").encode())
    Console().print(_table(judge, quality))


def _table(judge: str, quality: Quality) -> Table:
    table = Table(title=f"{judge}: {quality.num_pairs} pairs, {quality.num_same} of them the same")
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    for name in ("precision", "recall", "f1", "accuracy"):
        value, low, high = getattr(quality, name)
        table.add_row(name, f"{value:.3f}", rf"\[{low:.3f}, {high:.3f}]")
    table.add_section()
    for kind, (share, count) in quality.by_kind.items():
        table.add_row(f"right on: {kind}", f"{share:.3f}", f"n = {count}")
    return table


if __name__ == "__main__":
    run(judge_quality_command)
