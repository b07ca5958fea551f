"""`semanticspec probe`: makes probes for a pair of models, one command per stage."""

from __future__ import annotations

import typer

from semanticspec.commands.probe.collect import collect_command
from semanticspec.commands.probe.evaluate import evaluate_command
from semanticspec.commands.probe.label import label_command
from semanticspec.commands.probe.outcomes import outcomes_command
from semanticspec.commands.probe.packaged import list_command
from semanticspec.commands.probe.publish import publish_command
from semanticspec.commands.probe.run import run_command
from semanticspec.commands.probe.train import train_command

probe_app = typer.Typer(
    name="probe",
    help="Make probes for a pair of models: collect, label, train, evaluate, publish; or run all of them.",
    no_args_is_help=True,
)
probe_app.command("collect")(collect_command)
probe_app.command("label")(label_command)
probe_app.command("outcomes")(outcomes_command)
probe_app.command("train")(train_command)
probe_app.command("evaluate")(evaluate_command)
probe_app.command("publish")(publish_command)
probe_app.command("list")(list_command)
probe_app.command("run")(run_command)
