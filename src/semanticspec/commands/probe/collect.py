"""`semanticspec probe collect`: samples both models, as training data for probes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

from semanticspec.commands.option_groups import expand_options, option_in
from semanticspec.commands.options import PairOptions, decoding_option, model_option, output_option
from semanticspec.config import RuleConfig
from semanticspec.engines.base import Pooling, StateSpec
from semanticspec.output.files import check_output_folder
from semanticspec.output.progress import say
from semanticspec.problems.sources import read_problems
from semanticspec.records import Author, Sampling
from semanticspec.training import stages
from semanticspec.training.data.settings import CollectConfig

PROBLEMS_HELP = (
    "demo, a JSONL file with a field prompt (and id), or a Hugging Face data set ORG/NAME[:SPLIT]."
)
_problems_option = option_in("Problems")
_contexts_option = option_in("Contexts")


@expand_options(without=["target_probe", "draft_probe"])
def collect_command(
    *,
    pair: PairOptions,
    problems: Annotated[str, _problems_option(f"Where the problems come from: {PROBLEMS_HELP}")] = "demo",
    config_name: Annotated[
        str | None, _problems_option("Configuration of a Hugging Face data set that has several.", "--config")
    ] = None,
    num_problems: Annotated[
        int | None,
        _problems_option("Number of problems, from the start.", min=1, default="all; of demo, 100"),
    ] = None,
    traces: Annotated[
        str | None,
        _problems_option("Field with a given reasoning, used instead of one by the target.", default="none"),
    ] = None,
    samples: Annotated[
        int, _contexts_option("Segments that each model samples in each context.", min=2)
    ] = 20,
    max_contexts: Annotated[
        int | None, _contexts_option("Maximum contexts of a problem.", min=1, default="all")
    ] = None,
    loop_share: Annotated[
        float,
        _contexts_option(
            "Minimum share of contexts from text that speculative decoding wrote.", min=0, max=0.99
        ),
    ] = 0.5,
    one_trace: Annotated[
        bool,
        _contexts_option(
            "Take all contexts of a problem from one trace, which halves the decoding of traces.",
            "--one-trace",
        ),
    ] = False,
    accept_rate: Annotated[
        float,
        _contexts_option(
            "Acceptance rate of the rule random, one of the two rules that speculative decoding uses here."
        ),
    ] = 0.7,
    max_trace_tokens: Annotated[
        int, _contexts_option("Maximum length of a trace in tokens; contexts are prefixes of it.", min=1)
    ] = 8000,
    temperature: Annotated[float, decoding_option("Sampling temperature of both models.")] = 0.6,
    top_p: Annotated[float, decoding_option("Nucleus sampling of both models.")] = 0.95,
    seed: Annotated[int, decoding_option("Random seed; the same seed gives the same collection.", min=0)] = 0,
    concurrency: Annotated[int, decoding_option("Problems at the same time.", min=1)] = 4,
    target_layer: Annotated[
        int, model_option("Layer of the target's hidden states; -1 is the last one, after the final norm.")
    ] = -1,
    draft_layer: Annotated[int, model_option("Layer of the draft's hidden states.")] = -1,
    pooling: Annotated[
        str, model_option("Pooling of a segment's hidden states: mean, last, or none (keep all).")
    ] = "mean",
    out: Annotated[Path, output_option("Folder for the collection. An interrupted one in it is resumed.")],
) -> None:
    """Sample both models in contexts of every problem.

    Interrupted runs resume: rerun the same command.
    """
    from semanticspec.training.data.parquet import require_pyarrow

    require_pyarrow()
    check_output_folder(out)
    layers: dict[Author, int] = {"target": target_layer, "draft": draft_layer}
    listed = read_problems(problems, num_problems, traces, config_name)
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
    models = stages.load_models(
        pair.target,
        pair.draft,
        {role: StateSpec(layer, cast(Pooling, pooling)) for role, layer in layers.items()},
        pair.engines,
        dtypes=pair.dtypes,
        devices=pair.devices,
    )
    collection = stages.run_collect(models, listed, config, out, concurrency)
    say(f"{len(listed)} problems in {collection.folder}. Next: semanticspec probe label --data {out}")
