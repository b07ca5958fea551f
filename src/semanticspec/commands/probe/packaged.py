"""`semanticspec probe list`: lists the probes that are part of the package."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from semanticspec.commands.options import output_option
from semanticspec.probes.registry import packaged_probes


def list_command(
    as_json: Annotated[bool, output_option("Print a JSON list instead of a table.", "--json")] = False,
) -> None:
    """List the packaged probes. The name of a pair works as --target-probe and --draft-probe."""
    probes = [
        {
            "pair": probe.pair,
            "role": probe.role,
            "model": probe.card.names[0],
            "estimator": probe.card.estimator,
            "judge": probe.card.judge,
            "auroc": probe.card.metrics.get("auroc"),
            "path": str(probe.path),
        }
        for probe in packaged_probes()
    ]
    if as_json:
        typer.echo(json.dumps(probes, indent=1))
        return
    columns = ("pair", "role", "model", "estimator", "judge")
    table = Table(*columns, "AUROC")
    for probe in probes:
        auroc = f"{probe['auroc']:.3f}" if probe["auroc"] is not None else ""
        table.add_row(*(str(probe[column]) for column in columns), auroc)
    console = Console()
    console.print(table)
    for probe in probes:
        console.print(f"{probe['pair']} {probe['role']}: {probe['path']}", soft_wrap=True, highlight=False)
