"""`semanticspec probe list`: lists the probes that are part of the package."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from semanticspec.commands.options import output_option
from semanticspec.probes.registry import packaged_probes


def list_command(
    as_json: Annotated[bool, output_option("Print a JSON list instead of text.", "--json")] = False,
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
    console = Console(soft_wrap=True, highlight=False)
    pair = ""
    for probe in probes:
        if probe["pair"] != pair:
            pair = str(probe["pair"])
            console.print(f"[bold]{pair}[/]")
        auroc = f", AUROC {probe['auroc']:.3f}" if probe["auroc"] is not None else ""
        made = f"estimator {probe['estimator']}, judge {probe['judge']}{auroc}"
        console.print(f"  {probe['role']}: {probe['model']} ({made})")
        console.print(f"    {probe['path']}", style="dim")
