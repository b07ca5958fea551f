"""`semanticspec probe run`: runs all stages from one settings file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semanticspec.commands.options import output_option
from semanticspec.demo import settings_path
from semanticspec.output.files import check_output_folder


def run_command(
    config: Annotated[
        Path, typer.Argument(help="Settings file (TOML), or demo for the settings of the bundled pair.")
    ],
    out: Annotated[
        Path, output_option("Folder for data, probes and reports. An interrupted run in it is resumed.")
    ],
) -> None:
    """Run all stages (collect, label, train, evaluate, publish) from one settings file.

    Finished stages with the same inputs are skipped. Interrupted runs resume: rerun the same command.
    """
    if str(config) == "demo" and not config.exists():
        config = settings_path()
    check_output_folder(out)
    from semanticspec.training.settings import read_settings

    settings = read_settings(config)
    from semanticspec.training.pipeline import run

    run(settings, out)
