"""Each stage as the command line runs it: with a progress bar and a summary. `pipeline` runs all of them.

Importing this module loads no torch.
"""

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
from semanticspec.output.console import print_table
from semanticspec.output.progress import progress_bar, say
from semanticspec.problems.sources import ProblemText
from semanticspec.records import Author
from semanticspec.training.labels.judges import JudgeConfig

if TYPE_CHECKING:
    from semanticspec.decoding.pair import Pair
    from semanticspec.probes.probe import Probe
    from semanticspec.training.data.answers import WrittenAnswers
    from semanticspec.training.data.settings import CollectConfig
    from semanticspec.training.data.storage import Collection
    from semanticspec.training.evaluate import Evaluation, JudgedRows
    from semanticspec.training.labels.outcomes import OutcomeSettings
    from semanticspec.training.train import TrainConfig

MIN_TEST_PROBLEMS = 10


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
    dtypes: Mapping[Author, str] | None = None,
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
        target_dtype=dtypes["target"] if dtypes else None,
        draft_dtype=dtypes["draft"] if dtypes else None,
        device=device,
        target_device=devices["target"] if devices else None,
        draft_device=devices["draft"] if devices else None,
    )


def run_collect(
    pair: Pair,
    problems: list[ProblemText],
    config: CollectConfig,
    out: Path,
    concurrency: int | None = None,
    answers: WrittenAnswers | None = None,
) -> Collection:
    """Collects with a progress bar and closes the pair. If interrupted, finished problems are kept."""
    from semanticspec.training.data.collect import collect
    from semanticspec.training.data.storage import Collection, Shard

    if answers is not None:
        answered = sum(problem.problem_id in answers.by_problem for problem in problems)
        say(
            f"{answered} of {len(problems)} problems have answers in {answers.folder}; the models write the traces of "
            "the others"
        )
    num_before = sum(Collection(out).has(problem.problem_id) for problem in problems)
    shards: list[tuple[int, int]] = []  # contexts, segments

    with progress_bar("collecting") as (progress, on_total):
        on_total(len(problems) - num_before)

        def on_progress(shard: Shard | None) -> None:
            if shard is not None:
                shards.append((len(shard.contexts), len(shard.segments)))
                progress("")

        async def work() -> Collection:
            try:
                return await collect(
                    pair,
                    problems,
                    config,
                    out,
                    concurrency=concurrency,
                    answers=answers,
                    on_progress=on_progress,
                )
            finally:
                await pair.aclose()

        start = time.perf_counter()
        collection = asyncio.run(work())
        seconds = time.perf_counter() - start
    contexts, segments = (sum(column) for column in zip((0, 0), *shards, strict=True))
    speed = f", {seconds / contexts:.1f} s per context" if contexts else ""
    say(
        f"{len(shards)} problems collected ({num_before} existed already), {contexts} contexts, "
        f"{segments} segments in {seconds:.0f} s{speed}"
    )
    return collection


def run_label(collection: Collection, judge: JudgeConfig | str) -> None:
    """Labels with a progress bar; a judge's name means that judge with its defaults."""
    from semanticspec.training.labels.judges import make_judge
    from semanticspec.training.labels.label import label

    config = JudgeConfig(judge) if isinstance(judge, str) else judge
    _ = collection.manifest  # fails at once if there is no collection
    made = make_judge(config, collection.folder)
    with progress_bar("labelling") as (progress, on_total):
        on_total(len(collection))
        label(collection, made, lambda _: progress(""))


def run_outcomes(
    collection: Collection,
    settings: OutcomeSettings,
    problems: list[ProblemText],
    target: str,
    *,
    engine: str,
    dtype: str,
    device: str,
    max_problems: int | None = None,
    concurrency: int | None = None,
) -> None:
    """Measures outcome labels with a progress bar; loads the target only if problems are left to measure."""
    from semanticspec.benchmark.tasks import find_task
    from semanticspec.loading import load_model
    from semanticspec.training.labels.continuations import golds_of, measurable, measure_outcomes
    from semanticspec.training.labels.outcomes import OutcomeStore, ProblemOutcomes

    shards = measurable(collection, max_problems)
    golds, store = golds_of(shards, problems), OutcomeStore(collection)
    left = sum(not store.has(shard) for shard in shards)
    say(
        f"{len(shards)} problems, {len(shards) - left} of them measured before; {len(golds)} have a right answer, for "
        "the others the majority of the target's answers counts"
    )
    if not left:
        return
    model = load_model(target, engine=engine, dtype=dtype, device=device)
    grader = find_task(settings.task).start_grader()
    with progress_bar("measuring outcomes") as (progress, on_total):
        on_total(left)

        def on_progress(measured: ProblemOutcomes | None) -> None:
            if measured is not None:
                progress("")

        async def work() -> dict[str, ProblemOutcomes]:
            try:
                return await measure_outcomes(
                    model,
                    collection,
                    settings,
                    golds,
                    grader,
                    max_problems=max_problems,
                    concurrency=concurrency,
                    on_progress=on_progress,
                )
            finally:
                await model.engine.aclose()

        try:
            measured = asyncio.run(work())
        finally:
            grader.close()
    without = sum(one.source == "none" for one in measured.values())
    if without:
        say(
            f"{without} problems have no right answer, and no two of the target's answers agree: not measured"
        )


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
    from semanticspec.training.train import Epoch, train
    from semanticspec.training.train_config import NUM_CANDIDATES

    _ = collection.manifest  # fails at once if there is no collection
    with progress_bar(f"training {role}") as (progress, on_total):
        on_total(config.max_epochs * (NUM_CANDIDATES if config.estimator == "auto" else 1))

        def on_epoch(epoch: Epoch) -> None:
            progress(f"validation loss {epoch.validation_loss:.4f}")

        probe = train(collection, role, judge, config, on_epoch, model_names)
    with storing(out):
        probe.save(out)
    kind = "joint" if probe.card.draft is not None else role
    say(
        f"{kind} probe ({probe.card.estimator}, calibration {probe.card.calibration}) in {out}, on "
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
    """Evaluates, prints the main tables and writes the report."""
    from dataclasses import replace

    from semanticspec.training.ablations import SHARES, Retraining, num_variants
    from semanticspec.training.charts import undrawn
    from semanticspec.training.evaluate import evaluate, judge_rows
    from semanticspec.training.report import provenance, write_report

    rows = judge_rows(collection, probe, judge, draft_probe)
    command = shlex.join(["semanticspec", *sys.argv[1:]])
    evaluation = replace(evaluate(rows, probe, judge), made=provenance(command, collection))
    steps = len(SHARES) * learning_curve + num_variants(collection, probe.card.role) * ablations
    if steps:
        with progress_bar("retraining") as (progress, on_total):
            on_total(steps)
            retraining = Retraining(collection, probe.card, judge, progress)
            evaluation = replace(
                evaluation,
                learning_curve=retraining.learning_curve() if learning_curve else [],
                ablations=retraining.ablations() if ablations else [],
            )
    with storing(out):
        page = write_report(evaluation, rows, out)
    _print_tables(evaluation, rows)
    _warn_of_few_problems(evaluation, undrawn(evaluation, rows))
    say(f"report in {page}")
    return evaluation


def _warn_of_few_problems(evaluation: Evaluation, missing: Mapping[str, str]) -> None:
    """Warns of figures that are left out, and of intervals that the number of problems makes useless."""
    for name, reason in missing.items():
        say(f"warning: the report has no figure {name.replace('_', ' ')}: {reason}")
    problems = round(evaluation.sizes["problems"])
    if problems < MIN_TEST_PROBLEMS:
        say(
            f"warning: {problems} test problems are too few to tell how good the probe is; collect on 100 problems or "
            "more, a fifth of which are test problems"
        )


def _print_tables(evaluation: Evaluation, rows: JudgedRows) -> None:
    """Prints the main figures as tables on standard output."""
    from rich.console import Console

    from semanticspec.training.report import text_tables

    for section in text_tables(evaluation):
        print_table(section)
    problems = evaluation.sizes["problems"]
    Console().print(f"{len(rows.examples)} distinct segments of {problems:.0f} test problems")
