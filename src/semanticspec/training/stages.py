"""The stages as commands and `run` do them: with a progress bar, and with their results told."""

from __future__ import annotations

import asyncio
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from semanticspec.engines.base import StateSpec
from semanticspec.errors import ProbeError
from semanticspec.output.progress import progress_bar, say
from semanticspec.records import Author
from semanticspec.training.data.problems import ProblemText
from semanticspec.training.labels.judges import JudgeConfig

if TYPE_CHECKING:
    from semanticspec.decoding.pair import Pair
    from semanticspec.probes.probe import Probe
    from semanticspec.training.data.settings import CollectConfig
    from semanticspec.training.data.storage import Collection
    from semanticspec.training.evaluate import Evaluation, JudgedRows
    from semanticspec.training.train import TrainConfig


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Turns a failure to write, such as a full disk, into an error of one line.

    Raises:
        ProbeError: something at or under `path` could not be written.
    """
    try:
        yield
    except OSError as error:
        raise ProbeError(
            f"{path} cannot be written: {error.strerror or error}; finished work is kept, free some space and rerun "
            "the same command"
        ) from error


def load_models(
    target: str | None,
    draft: str | None,
    states: Mapping[Author, StateSpec],
    engines: Mapping[Author, str],
    dtype: str = "auto",
    device: str = "auto",
    devices: Mapping[Author, str] | None = None,
) -> Pair:
    """Loads a pair without probes; if neither model is named, the bundled ones."""
    from semanticspec.loading import load_pair, model_names

    target, draft = model_names(target, draft)
    return load_pair(
        target,
        draft,
        target_states=states["target"],
        draft_states=states["draft"],
        target_engine=engines["target"],
        draft_engine=engines["draft"],
        dtype=dtype,
        device=device,
        target_device=devices["target"] if devices else None,
        draft_device=devices["draft"] if devices else None,
    )


def run_collect(
    pair: Pair, problems: list[ProblemText], config: CollectConfig, out: Path, concurrency: int = 4
) -> Collection:
    """Collects with a progress bar and closes the pair. What is finished stays when this is interrupted."""
    from semanticspec.training.data.collect import collect
    from semanticspec.training.data.storage import Collection, Shard

    there = sum(Collection(out).has(problem.problem_id) for problem in problems)
    contexts: list[int] = []
    segments: list[int] = []

    with progress_bar("collecting") as (progress, on_total):
        on_total(len(problems) - there)

        def on_progress(shard: Shard | None) -> None:
            if shard is not None:
                contexts.append(len(shard.contexts))
                segments.append(len(shard.segments))
                progress("")

        async def work() -> Collection:
            try:
                return await collect(
                    pair, problems, config, out, concurrency=concurrency, on_progress=on_progress
                )
            finally:
                await pair.aclose()

        start = time.perf_counter()
        collection = asyncio.run(work())
        seconds = time.perf_counter() - start
    each = f", {seconds / sum(contexts):.1f} s a context" if sum(contexts) else ""
    say(
        f"{len(contexts)} problems collected ({there} were there), {sum(contexts)} contexts, "
        f"{sum(segments)} segments in {seconds:.0f} s{each}"
    )
    return collection


def run_label(collection: Collection, judge: JudgeConfig | str) -> None:
    """Labels with a progress bar; a judge's name stands for the judge with its defaults."""
    from semanticspec.training.labels.judges import make_judge
    from semanticspec.training.labels.label import label

    config = JudgeConfig(judge) if isinstance(judge, str) else judge
    _ = collection.manifest  # tells at once when there is no collection
    made = make_judge(config, collection.folder)
    with progress_bar("labelling") as (progress, on_total):
        on_total(len(collection))
        label(collection, made, lambda _: progress(""))


def run_train(
    collection: Collection,
    role: Author,
    judge: str,
    config: TrainConfig,
    out: Path,
    model_names: tuple[str, ...] = (),
) -> Probe:
    """Trains with a progress bar and saves the probe."""
    from semanticspec.training.metrics import summary
    from semanticspec.training.train import NUM_CANDIDATES, Epoch, train

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

    from semanticspec.training.ablations import SHARES, Retraining, num_variants
    from semanticspec.training.evaluate import evaluate, judge_rows
    from semanticspec.training.report import provenance, write_report

    rows = judge_rows(collection, probe, judge, draft_probe)
    evaluation = replace(evaluate(rows, probe, judge), made=provenance(_command_line(), collection))
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


def _show(evaluation: Evaluation, rows: JudgedRows) -> None:
    """The main figures as tables on standard output."""
    from rich.console import Console
    from rich.table import Table

    from semanticspec.training.report import text_tables

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
