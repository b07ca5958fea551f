"""Measures a judge on pairs with a known answer: `python -m experiments.judge_quality --judge numeric`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from semanticspec.commands.judge_options import (
    BatchSize,
    JudgeDevice,
    JudgeMaxTokens,
    JudgeModel,
    JudgeName,
    JudgeUrl,
    Requests,
)
from semanticspec.commands.main import run
from semanticspec.errors import ConfigError
from semanticspec.training.labels.judges import JudgeConfig, make_judge

if TYPE_CHECKING:
    from experiments.judge_quality.quality import Quality


def judge_quality_command(
    judge: JudgeName = "numeric",
    pairs: Annotated[
        str,
        typer.Option(
            help="demo, the folder of a collection of demo problems, or a JSONL file with a, b and label or same."
        ),
    ] = "demo",
    num_pairs: Annotated[
        int, typer.Option(min=2, help="Pairs; half of them are the same (not so in a collection).")
    ] = 1000,
    least_score: Annotated[
        float,
        typer.Option(
            help="Ignore entailments with a lower score (SICK: they may hold in one direction only)."
        ),
    ] = 0.0,
    judge_model: JudgeModel = None,
    judge_url: JudgeUrl = None,
    judge_max_tokens: JudgeMaxTokens = 16,
    batch_size: BatchSize = 32,
    concurrency: Requests = 4,
    device: JudgeDevice = "auto",
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder for a model's verdicts; a second run reuses them."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seeds the choice of pairs and the bootstrap.")] = 0,
    out: Annotated[Path | None, typer.Option(help="JSON file for the figures.")] = None,
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

    config = JudgeConfig(judge, judge_model, judge_url, device, batch_size, concurrency, judge_max_tokens)
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
        report = {
            "judge": judge,
            "identity": made.identity,
            "pairs": pairs,
            "seed": seed,
            **asdict(quality),
        }
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
