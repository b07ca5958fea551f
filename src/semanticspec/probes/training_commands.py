"""`semanticspec probe ...`: train, evaluate, publish, list and run."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from semanticspec.errors import ConfigError
from semanticspec.probes.progress import progress_bar, say, storing
from semanticspec.records import Author

if TYPE_CHECKING:
    from semanticspec.probes.evaluate import Evaluation, JudgedRows
    from semanticspec.probes.probe import Probe
    from semanticspec.probes.storage import Collection
    from semanticspec.probes.train import TrainConfig

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
    features: Annotated[str, typer.Option(help="Features beside the state, by commas, or all.")] = "",
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
    from semanticspec.probes.features import features_for
    from semanticspec.probes.storage import Collection
    from semanticspec.probes.train import TrainConfig

    choices: Any = {
        "estimator": estimator,
        "pooling": pooling,
        "loss": loss,
        "counting": counting,
        "calibration": calibration,
    }
    config = TrainConfig(
        widths=_numbers(widths) if widths else None,
        features=features_for(role) if features == "all" else tuple(filter(None, features.split(","))),
        use_state=state,
        components=components,
        weight_decay=weight_decay,
        max_epochs=max_epochs,
        seed=seed,
        **choices,
    )
    run_train(Collection(data), role, judge, config, out, tuple(model_name or ()))


def run_train(
    collection: Collection,
    role: Author,
    judge: str,
    config: TrainConfig,
    out: Path,
    model_names: tuple[str, ...] = (),
) -> Probe:
    """Trains with a progress bar and saves the probe."""
    from semanticspec.probes.metrics import summary
    from semanticspec.probes.train import NUM_CANDIDATES, Epoch, train

    _ = collection.manifest  # tells at once when there is no collection
    with progress_bar(f"training {role}") as (progress, on_total):
        on_total(config.max_epochs * (NUM_CANDIDATES if config.estimator == "auto" else 1))

        def on_epoch(epoch: Epoch) -> None:
            progress(f"validation loss {epoch.validation_loss:.4f}")

        probe = train(collection, role, judge, config, on_epoch, model_names)
    with storing(out):
        probe.save(out)
    say(
        f"{role} probe ({probe.card.estimator}, calibration {probe.card.calibration}) in {out}, on "
        f"{probe.card.metrics.get('num_problems', 0):.0f} held-out problems: {summary(probe.card.metrics)}"
    )
    return probe


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
    from semanticspec.probes.finding import locate
    from semanticspec.probes.plots import check_plotting

    check_plotting()
    from semanticspec.probes.probe import Probe
    from semanticspec.probes.storage import Collection

    loaded = Probe.load(locate(probe, checked_role(role)))
    of_draft = Probe.load(locate(draft_probe, "draft")) if draft_probe else None
    run_evaluate(
        Collection(data), loaded, out, of_draft, judge, learning_curve=learning_curve, ablations=ablations
    )


def run_evaluate(
    collection: Collection,
    probe: Probe,
    out: Path,
    draft_probe: Probe | None = None,
    judge: str = "",
    *,
    learning_curve: bool = True,
    ablations: bool = False,
) -> Evaluation:
    """Evaluates, prints the main table and writes the report."""
    from dataclasses import replace

    from semanticspec.probes.evaluate import evaluate, judge_rows
    from semanticspec.probes.report import how_made, write_report
    from semanticspec.probes.retraining import SHARES, Retraining, num_variants

    rows = judge_rows(collection, probe, judge, draft_probe)
    evaluation = replace(evaluate(rows, probe, judge), made=how_made(_command_line(), collection))
    steps = len(SHARES) * learning_curve + num_variants(collection, probe.card.role) * ablations
    if steps:
        with progress_bar("training again") as (progress, on_total):
            on_total(steps)
            again = Retraining(collection, probe.card, judge, progress)
            evaluation = replace(
                evaluation,
                learning_curve=again.learning_curve() if learning_curve else [],
                ablations=again.ablations() if ablations else [],
            )
    with storing(out):
        page = write_report(evaluation, rows, out)
    _show(evaluation, rows)
    say(f"report in {page}")
    return evaluation


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
    from semanticspec.probes import publish
    from semanticspec.probes.finding import locate

    folder = locate(probe, checked_role(role))
    if push:
        say(f"uploaded: {publish.push(folder, to, evaluation, private=private)}")
    else:
        with storing(Path(to)):
            published = publish.publish(folder, Path(to), evaluation)
        say(f"probe and README in {published}")


def list_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list instead of a table.")] = False,
) -> None:
    """List the probes that come with the package; --target-probe and --draft-probe take the pair's name."""
    from rich.console import Console
    from rich.table import Table

    from semanticspec.probes.finding import packaged_probes

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
    from semanticspec.probes.run import run
    from semanticspec.probes.settings import read_settings

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


def _show(evaluation: Evaluation, rows: JudgedRows) -> None:
    """The main figures as tables on standard output."""
    from rich.console import Console
    from rich.table import Table

    from semanticspec.probes.report import text_tables

    console = Console()
    for title, headings, lines in text_tables(evaluation):
        table = Table(*headings, title=title, title_justify="left")
        for line in lines:
            table.add_row(*line)
        console.print(table)
    console.print(
        f"{len(rows.examples)} distinct segments of {evaluation.sizes['problems']:.0f} test problems"
    )


def _command_line() -> str:
    return shlex.join(["semanticspec", *sys.argv[1:]])


def _numbers(text: str) -> tuple[int, ...]:
    if text == "none":
        return ()
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--widths is {text!r}; expected numbers such as 256,64, or none") from error
