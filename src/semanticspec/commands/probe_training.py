"""`semanticspec probe ...`: train, evaluate, publish, list and run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer

from semanticspec.errors import ConfigError
from semanticspec.output.progress import say
from semanticspec.records import Author
from semanticspec.training import stages

Data = Annotated[Path, typer.Option(help="Folder of the collection.")]
ProbePath = Annotated[str, typer.Option(help="Folder of the probe, or a packaged or hub name.")]


def train_command(
    role: Annotated[str, typer.Option(help="target or draft: whose probe.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for the probe.")],
    judge: Annotated[str, typer.Option(help="The judge that labelled the collection.")] = "exact",
    estimator: Annotated[
        str,
        typer.Option(
            help="features, state, both, components (of the state, and features), auto: the best of these "
            "on validation problems; given: what the options below say."
        ),
    ] = "given",
    widths: Annotated[
        str | None, typer.Option(help="Hidden layers, e.g. 256,64, or none; default: the paper's.")
    ] = None,
    features: Annotated[
        str,
        typer.Option(help="Features beside the state, by commas; all; or portable: those of every engine."),
    ] = "",
    state: Annotated[bool, typer.Option("--state/--no-state", help="Read the pooled state.")] = True,
    components: Annotated[
        int, typer.Option(min=0, help="Principal components of the state to read; 0: the state itself.")
    ] = 0,
    pooling: Annotated[
        str | None,
        typer.Option(
            help="Of a segment's states: mean, last or attention (learnt); default: as they were collected."
        ),
    ] = None,
    loss: Annotated[str, typer.Option(help="bce or mse (the paper's).")] = "bce",
    counting: Annotated[str, typer.Option(help="unbiased, or paper.")] = "unbiased",
    calibration: Annotated[
        str, typer.Option(help="auto, none, platt or isotonic: map fitted on validation problems.")
    ] = "auto",
    weight_decay: Annotated[float, typer.Option(min=0, help="Of AdamW; 0 is plain Adam.")] = 0.0,
    max_epochs: Annotated[
        int, typer.Option(min=1, help="At most; stops earlier when nothing improves.")
    ] = 100,
    model_name: Annotated[
        list[str] | None, typer.Option(help="Name of the model for the card, such as its hub name.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same choices.")] = 0,
) -> None:
    """Train a probe and measure it on problems held out from training."""
    role = checked_role(role)
    from semanticspec.probes.features import named_features
    from semanticspec.training.data.storage import Collection
    from semanticspec.training.train import TrainConfig

    choices: Any = {
        "estimator": estimator,
        "pooling": pooling,
        "loss": loss,
        "counting": counting,
        "calibration": calibration,
    }
    config = TrainConfig(
        widths=_numbers(widths) if widths else None,
        features=named_features(features, role),
        use_state=state,
        components=components,
        weight_decay=weight_decay,
        max_epochs=max_epochs,
        seed=seed,
        **choices,
    )
    stages.run_train(Collection(data), role, judge, config, out, tuple(model_name or ()))


def evaluate_command(
    data: Data,
    probe: ProbePath,
    out: Annotated[Path, typer.Option(help="Folder for the report.")],
    role: Annotated[
        str, typer.Option(help="target or draft, where the probe is given by a packaged name.")
    ] = "target",
    draft_probe: Annotated[
        str | None, typer.Option(help="The draft's probe, to judge a target's probe in proportion to it.")
    ] = None,
    judge: Annotated[str, typer.Option(help="Whose labels; default: those it was trained on.")] = "",
    learning_curve: Annotated[
        bool, typer.Option("--learning-curve/--no-learning-curve", help="Train again on fewer problems.")
    ] = True,
    ablations: Annotated[
        bool,
        typer.Option("--ablations", help="Train again with less to read, other losses, shuffled labels."),
    ] = False,
) -> None:
    """Measure a probe on test problems beside cheap signals; write figures and an HTML report."""
    from semanticspec.output.pages import check_report_libraries
    from semanticspec.probes.registry import locate

    check_report_libraries("probes", "sklearn")
    from semanticspec.probes.probe import Probe
    from semanticspec.training.data.storage import Collection

    loaded = Probe.load(locate(probe, checked_role(role)))
    of_draft = Probe.load(locate(draft_probe, "draft")) if draft_probe else None
    stages.run_evaluate(
        Collection(data), loaded, out, of_draft, judge, learning_curve=learning_curve, ablations=ablations
    )


def publish_command(
    probe: ProbePath,
    to: Annotated[str, typer.Option(help="Folder; with --push the hub repository, owner/name.")],
    role: Annotated[
        str, typer.Option(help="target or draft, where the probe is given by a packaged name.")
    ] = "target",
    evaluation: Annotated[
        Path | None, typer.Option(help="Folder of the probe's report, for the README's figures.")
    ] = None,
    push: Annotated[bool, typer.Option("--push", help="Upload to the hub.")] = False,
    private: Annotated[bool, typer.Option("--private", help="Make the repository a private one.")] = False,
) -> None:
    """Write a probe with a README into a folder, or upload it to the hub."""
    from semanticspec.probes.registry import locate
    from semanticspec.training import publish

    folder = locate(probe, checked_role(role))
    if push:
        say(f"uploaded: {publish.push(folder, to, evaluation, private=private)}")
    else:
        with stages.storing(Path(to)):
            published = publish.publish(folder, Path(to), evaluation)
        say(f"probe and README in {published}")


def list_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of a table.")] = False,
) -> None:
    """List the probes that come with the package; --target-probe and --draft-probe take the pair's name."""
    from rich.console import Console
    from rich.table import Table

    from semanticspec.probes.registry import packaged_probes

    listed = [
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
        typer.echo(json.dumps(listed, indent=1))
        return
    table = Table("pair", "role", "model", "estimator", "judge", "AUROC")
    for entry in listed:
        auroc = f"{entry['auroc']:.3f}" if entry["auroc"] is not None else ""
        table.add_row(*(str(entry[name]) for name in ("pair", "role", "model", "estimator", "judge")), auroc)
    console = Console()
    console.print(table)
    for entry in listed:
        console.print(f"{entry['pair']} {entry['role']}: {entry['path']}", soft_wrap=True, highlight=False)


def run_command(
    config: Annotated[Path, typer.Argument(help="TOML file, or demo: the bundled pair's own.")],
    out: Annotated[Path, typer.Option(help="Folder for everything; an unfinished run is continued.")],
) -> None:
    """Run all stages from one file. A stage that is done, and whose inputs are the same, is not done again."""
    from semanticspec.demo import settings_path
    from semanticspec.training.pipeline import run
    from semanticspec.training.settings import read_settings

    if str(config) == "demo" and not config.exists():
        config = settings_path()
    run(read_settings(config), out)


LATER_STAGES: dict[str, Callable[..., None]] = {
    "train": train_command,
    "evaluate": evaluate_command,
    "publish": publish_command,
    "list": list_command,
    "run": run_command,
}
"""In the order in which the help lists them."""


def checked_role(role: str) -> Author:
    """Raises ConfigError for what is no role."""
    if role not in get_args(Author):
        raise ConfigError(f"--role is {role!r}; expected target or draft")
    return cast(Author, role)


def _numbers(text: str) -> tuple[int, ...]:
    if text == "none":
        return ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--widths is {text!r}; expected numbers such as 256,64, or none") from error
