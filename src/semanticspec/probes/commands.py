"""`semanticspec probe ...`: collect, label and train, one command a stage."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from semanticspec.config import RuleConfig
from semanticspec.errors import ConfigError
from semanticspec.probes.judges import JudgeConfig
from semanticspec.probes.judges.commands import (
    BatchSize,
    JudgeDevice,
    JudgeMaxTokens,
    JudgeModel,
    JudgeName,
    JudgeUrl,
    Requests,
    judge_quality_command,
)
from semanticspec.records import Sampling

if TYPE_CHECKING:
    from semanticspec.pair import Pair
    from semanticspec.probes.collect import CollectConfig, ProblemText
    from semanticspec.probes.storage import Collection
    from semanticspec.probes.train import Epoch

DEMO_PROBLEMS = "demo"

probe_app = typer.Typer(
    name="probe",
    help="Make probes for a pair of models: collect, then label, then train (once for each role).",
    no_args_is_help=True,
)

Data = Annotated[Path, typer.Option(help="Folder of the collection.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed makes the same choices.")]


@probe_app.command("collect")
def collect_command(
    out: Annotated[Path, typer.Option(help="Folder for the collection; an unfinished one is continued.")],
    problems: Annotated[
        str, typer.Option(help="JSONL file with a prompt (and id) on each line, or demo.")
    ] = "demo",
    target: Annotated[str | None, typer.Option(help="Hub name or folder; default: the bundled pair.")] = None,
    draft: Annotated[str | None, typer.Option(help="Hub name or folder; default: the bundled pair.")] = None,
    num_problems: Annotated[int | None, typer.Option(min=1, help="The first so many problems only.")] = None,
    samples: Annotated[int, typer.Option(min=2, help="Segments each model writes in each context.")] = 20,
    max_contexts: Annotated[
        int | None, typer.Option(min=1, help="Contexts of a problem; default: all.")
    ] = None,
    temperature: Annotated[float, typer.Option(help="Of both models.")] = 0.6,
    top_p: Annotated[float, typer.Option(help="Of both models.")] = 0.95,
    accept_rate: Annotated[
        float, typer.Option(help="Of the loop that writes contexts, where it draws.")
    ] = 0.7,
    max_trace_tokens: Annotated[
        int, typer.Option(min=1, help="Longest reasoning to cut contexts from.")
    ] = 8000,
    concurrency: Annotated[int, typer.Option(min=1, help="Problems at work at once.")] = 4,
    seed: Seed = 0,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
) -> None:
    """Sample both models in contexts of every problem. Ctrl-C stops it; the same command goes on."""
    listed = read_problems(problems, num_problems)
    from semanticspec.probes.collect import CollectConfig

    config = CollectConfig(
        num_samples=samples,
        sampling=Sampling(temperature, top_p),
        max_trace_tokens=max_trace_tokens,
        max_contexts=max_contexts,
        loop_rules=(RuleConfig("top-k"), RuleConfig("random", accept_rate=accept_rate)),
        seed=seed,
    )
    pair = load_models(target, draft, dtype=dtype, device=device)
    collection = run_collect(pair, listed, config, out, concurrency)
    _say(f"{len(listed)} problems in {collection.folder}. Next: semanticspec probe label --data {out}")


@probe_app.command("label")
def label_command(
    data: Data,
    judge: JudgeName = "exact",
    judge_model: JudgeModel = None,
    judge_url: JudgeUrl = None,
    judge_max_tokens: JudgeMaxTokens = 16,
    batch_size: BatchSize = 32,
    concurrency: Requests = 4,
    device: JudgeDevice = "auto",
) -> None:
    """Decide which segments of each context mean the same. Stopped or killed, the same command goes on."""
    from semanticspec.probes.storage import Collection

    config = JudgeConfig(judge, judge_model, judge_url, device, batch_size, concurrency, judge_max_tokens)
    run_label(Collection(data), config)
    _say(
        f"labelled by the judge {judge}. Next: semanticspec probe train --role target --data {data} "
        f"--judge {judge} --out ..."
    )


probe_app.command("judge-quality")(judge_quality_command)


@probe_app.command("train")
def train_command(
    role: Annotated[str, typer.Option(help="target or draft: whose probe.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for the probe.")],
    judge: JudgeName = "exact",
    widths: Annotated[
        str | None, typer.Option(help="Hidden layers, e.g. 256,64; default: the paper's.")
    ] = None,
    features: Annotated[str, typer.Option(help="Features beside the state, by commas, or all.")] = "",
    state: Annotated[bool, typer.Option("--state/--no-state", help="Read the pooled state.")] = True,
    loss: Annotated[str, typer.Option(help="bce or mse (the paper's).")] = "bce",
    counting: Annotated[str, typer.Option(help="unbiased, or paper.")] = "unbiased",
    max_epochs: Annotated[
        int, typer.Option(min=1, help="At most; stops earlier when nothing improves.")
    ] = 100,
    seed: Seed = 0,
) -> None:
    """Train a probe and measure it on problems held out from training."""
    if role not in ("target", "draft"):
        raise ConfigError(f"--role is {role!r}; expected target or draft")
    from semanticspec.probes.features import FEATURES
    from semanticspec.probes.storage import Collection
    from semanticspec.probes.train import TrainConfig

    config = TrainConfig(
        widths=_numbers(widths) if widths else None,
        features=tuple(FEATURES) if features == "all" else tuple(filter(None, features.split(","))),
        use_state=state,
        loss=cast(Literal["bce", "mse"], loss),
        counting=cast(Literal["unbiased", "paper"], counting),
        max_epochs=max_epochs,
        seed=seed,
    )
    from semanticspec.probes.evaluate import summary
    from semanticspec.probes.train import train

    with _bar("training") as (progress, on_total):
        on_total(config.max_epochs)

        def on_epoch(epoch: Epoch) -> None:
            progress(f"validation loss {epoch.validation_loss:.4f}")

        probe = train(Collection(data), cast(Literal["target", "draft"], role), judge, config, on_epoch)
    probe.save(out)
    _say(
        f"{role} probe in {out}, on {probe.card.metrics.get('num_problems', 0):.0f} held-out problems: "
        f"{summary(probe.card.metrics)}"
    )


def read_problems(source: str, count: int | None = None) -> list[ProblemText]:
    """Problems of a JSONL file (`prompt`, `problem` or `question`, and an `id` if there is one), or the
    demo's.

    The demo's come from its training and validation splits, never from the test problems.

    Raises:
        ConfigError: the file cannot be read, or a line is no problem.
    """
    from semanticspec.probes.collect import ProblemText

    if source == DEMO_PROBLEMS:
        from semanticspec.probes.bundled import demo_problems

        return demo_problems(count or 100)
    found: list[ProblemText] = []
    try:
        lines = Path(source).read_text().splitlines()
    except OSError as error:
        raise ConfigError(f"no problems can be read from {source!r}: {error.strerror}") from error
    for number, line in enumerate(filter(str.strip, lines), start=1):
        try:
            entry = json.loads(line)
            text = next(entry[name] for name in ("prompt", "problem", "question") if entry.get(name))
            found.append(ProblemText(str(entry.get("id", number)), str(text)))
        except (ValueError, AttributeError, StopIteration) as error:
            raise ConfigError(
                f"{source}, line {number}: expected a JSON object with prompt, problem or question"
            ) from error
    if not found:
        raise ConfigError(f"{source} holds no problems")
    return found[:count]


def load_models(target: str | None, draft: str | None, dtype: str = "auto", device: str = "auto") -> Pair:
    """A pair without probes; without names the bundled models."""
    from semanticspec import demo
    from semanticspec.loading import load_pair

    if target is None and draft is None:
        target, draft = str(demo.target_path()), str(demo.draft_path())
    return load_pair(target, draft, dtype=dtype, device=device)


def run_collect(
    pair: Pair, problems: list[ProblemText], config: CollectConfig, out: Path, concurrency: int = 4
) -> Collection:
    """Collects with a progress bar and closes the pair. What is finished stays when this is interrupted."""
    from semanticspec.probes.collect import collect

    async def work(on_progress: Callable[[object], None]) -> Collection:
        try:
            return await collect(
                pair, problems, config, out, concurrency=concurrency, on_progress=on_progress
            )
        finally:
            await pair.aclose()

    with _bar("collecting") as (progress, on_total):
        on_total(len(problems))
        return asyncio.run(work(lambda _: progress("")))


def run_label(collection: Collection, judge: JudgeConfig | str) -> None:
    """Labels with a progress bar; a judge's name stands for the judge with its defaults."""
    from semanticspec.probes.judges import make_judge
    from semanticspec.probes.label import label

    config = JudgeConfig(judge) if isinstance(judge, str) else judge
    _ = collection.manifest  # tells at once when there is no collection
    made = make_judge(config, collection.folder)
    with _bar("labelling") as (progress, on_total):
        on_total(len(collection))
        label(collection, made, lambda _: progress(""))


@contextmanager
def _bar(name: str) -> Iterator[tuple[Callable[[str], None], Callable[[int], None]]]:
    """A progress bar on standard error: one function advances it (with a note), one sets the total."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=3600) as progress:
        task = progress.add_task(name, total=None, note="")
        yield (
            lambda note: progress.update(task, advance=1, note=note),
            lambda total: progress.update(task, total=total),
        )


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--widths is {text!r}; expected numbers such as 256,64") from error


def _say(text: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(text)
