"""`semanticspec probe ...`, one command a stage: collect and label; the later ones are in `training_commands`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from semanticspec.commands.judge_options import (
    BatchSize,
    JudgeDevice,
    JudgeMaxTokens,
    JudgeModel,
    JudgeName,
    JudgeUrl,
    Requests,
)
from semanticspec.commands.options import Device, Dtype, EngineName, EngineOfOne, ModelName
from semanticspec.commands.probe_training import LATER_STAGES
from semanticspec.config import RuleConfig
from semanticspec.engines.base import Pooling, StateSpec
from semanticspec.engines.registry import DEFAULT_ENGINE
from semanticspec.output.progress import say
from semanticspec.records import Author, Sampling
from semanticspec.training import stages
from semanticspec.training.data.problems import read_problems
from semanticspec.training.labels.judges import JudgeConfig

probe_app = typer.Typer(
    name="probe",
    help="Make probes for a pair of models: collect, label, train, evaluate, publish; or run, all of them.",
    no_args_is_help=True,
)

Data = Annotated[Path, typer.Option(help="Folder of the collection.")]
Seed = Annotated[int, typer.Option(min=0, help="The same seed makes the same choices.")]


@probe_app.command("collect")
def collect_command(
    out: Annotated[Path, typer.Option(help="Folder for the collection; an unfinished one is continued.")],
    problems: Annotated[
        str,
        typer.Option(
            help="demo, a JSONL file with a prompt (and id) a line, or a hub data set ORG/NAME[:SPLIT]."
        ),
    ] = "demo",
    config_name: Annotated[
        str | None, typer.Option("--config", help="Configuration of a hub data set that has several.")
    ] = None,
    target: ModelName = None,
    draft: ModelName = None,
    num_problems: Annotated[int | None, typer.Option(min=1, help="The first so many problems only.")] = None,
    samples: Annotated[int, typer.Option(min=2, help="Segments each model writes in each context.")] = 20,
    max_contexts: Annotated[
        int | None, typer.Option(min=1, help="Contexts of a problem; default: all.")
    ] = None,
    traces: Annotated[
        str | None, typer.Option(help="Field with a given reasoning, used instead of the target's own.")
    ] = None,
    loop_share: Annotated[
        float, typer.Option(min=0, max=0.99, help="At least so many contexts from what the loop writes.")
    ] = 0.5,
    one_trace: Annotated[
        bool, typer.Option("--one-trace", help="Contexts of a problem from one trace only: half the writing.")
    ] = False,
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
    target_layer: Annotated[
        int, typer.Option(help="Layer of the target's states; -1: the last, after the final norm.")
    ] = -1,
    draft_layer: Annotated[int, typer.Option(help="The same of the draft.")] = -1,
    pooling: Annotated[
        str, typer.Option(help="Of a segment's states: mean, last, or none: every one is kept.")
    ] = "mean",
    engine: EngineName = DEFAULT_ENGINE,
    target_engine: EngineOfOne = None,
    draft_engine: EngineOfOne = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
) -> None:
    """Sample both models in contexts of every problem. Ctrl-C stops it; the same command goes on."""
    from semanticspec.training.data.parquet import require_pyarrow

    require_pyarrow()
    kept = cast(Pooling, pooling)
    states: dict[Author, StateSpec] = {
        "target": StateSpec(target_layer, kept),
        "draft": StateSpec(draft_layer, kept),
    }
    listed = read_problems(problems, num_problems, traces, config_name)
    from semanticspec.training.data.settings import CollectConfig

    config = CollectConfig(
        num_samples=samples,
        sampling=Sampling(temperature, top_p),
        max_trace_tokens=max_trace_tokens,
        max_contexts=max_contexts,
        loop_share=loop_share,
        one_trace=one_trace,
        loop_rules=(RuleConfig("top-k"), RuleConfig("random", accept_rate=accept_rate)),
        seed=seed,
    )
    engines: dict[Author, str] = {"target": target_engine or engine, "draft": draft_engine or engine}
    pair = stages.load_models(target, draft, states, engines, dtype=dtype, device=device)
    collection = stages.run_collect(pair, listed, config, out, concurrency)
    say(f"{len(listed)} problems in {collection.folder}. Next: semanticspec probe label --data {out}")


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
    from semanticspec.training.data.storage import Collection

    config = JudgeConfig(judge, judge_model, judge_url, device, batch_size, concurrency, judge_max_tokens)
    stages.run_label(Collection(data), config)
    say(
        f"labelled by the judge {judge}. Next: semanticspec probe train --role target --data {data} "
        f"--judge {judge} --out ..."
    )


for _name, _command in LATER_STAGES.items():
    probe_app.command(_name)(_command)
