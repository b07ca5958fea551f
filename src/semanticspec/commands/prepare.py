"""`semanticspec prepare`: makes everything that a pair needs, from one settings file."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semanticspec.commands.option_groups import option
from semanticspec.commands.options import output_option
from semanticspec.demo import settings_path
from semanticspec.output.files import check_output_folder
from semanticspec.output.progress import say

if TYPE_CHECKING:
    from semanticspec.training.settings import RunSettings


def prepare_command(
    config: Annotated[
        Path, typer.Argument(help="Settings file (TOML), or demo for the settings of the bundled pair.")
    ],
    out: Annotated[
        Path, output_option("Folder for data, models and reports. An interrupted run in it is resumed.")
    ],
    only_plan: Annotated[bool, option("Print the plan (tokens, hours, disk) and stop.", "--plan")] = False,
) -> None:
    """Prepare a pair: align the draft, collect, label, train and evaluate probes, and publish all as one folder.

    Prints first what it will take on this machine, measured on a few problems. Finished stages with the same inputs are
    skipped. Interrupted runs resume: rerun the same command.
    """
    if str(config) == "demo" and not config.exists():
        config = settings_path()
    check_output_folder(out)
    from semanticspec.training.settings import read_settings

    settings = read_settings(config)
    from semanticspec.training.pipeline import SETTINGS_FILE, run

    if only_plan or not (out / SETTINGS_FILE).exists():
        _print_plan(settings)
    if not only_plan:
        run(settings, out)


def _print_plan(settings: RunSettings) -> None:
    """Measures both models on a few problems, and prints what all problems will take."""
    from semanticspec.output.console import print_table
    from semanticspec.problems.sources import read_problems
    from semanticspec.training.plan import NUM_SAMPLE_PROBLEMS, measure_speeds, plan, table
    from semanticspec.training.stages import load_models

    wanted, pair = settings.problems, settings.pair
    problems = read_problems(wanted.source, wanted.count, wanted.traces, wanted.config, wanted.template)
    say(f"measuring on {min(len(problems), NUM_SAMPLE_PROBLEMS)} problems")
    models = load_models(
        pair.target, pair.draft, pair.states, pair.engines, dtypes=pair.dtypes, device=pair.device
    )

    async def measure() -> None:
        try:
            speeds = await measure_speeds(
                models, problems, settings.collect.sampling, settings.collect.max_trace_tokens
            )
        finally:
            await models.aclose()
        print_table(table(plan(settings, len(problems), speeds, models)))

    asyncio.run(measure())
