"""`semanticspec probe collect`: samples both models, as training data for probes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

from semanticspec.commands.option_groups import expand_options, option_in
from semanticspec.commands.options import PairOptions, decoding_option, model_option, output_option
from semanticspec.config import RuleConfig
from semanticspec.engines.base import Pooling, StateSpec
from semanticspec.errors import ConfigError
from semanticspec.output.files import check_output_folder
from semanticspec.output.progress import say
from semanticspec.problems.sources import PROMPT_TEMPLATES, read_problems
from semanticspec.records import Author, Sampling
from semanticspec.training import stages
from semanticspec.training.data.settings import CollectConfig, preset_settings

PROBLEMS_HELP = (
    "demo, a JSONL file with a field prompt (and id), or a Hugging Face data set ORG/NAME[:SPLIT]."
)
_DEFAULT = CollectConfig()
TEMPLATE_HELP = (
    f"What each problem is put into: {', '.join(PROMPT_TEMPLATES)}, or a text with {{problem}} in it."
)
_problems_option = option_in("Problems")
ConfigName = Annotated[
    str | None, _problems_option("Configuration of a Hugging Face data set that has several.", "--config")
]
NumProblems = Annotated[
    int | None, _problems_option("Number of problems, from the start.", min=1, default="all; of demo, 100")
]
Template = Annotated[str, _problems_option(TEMPLATE_HELP)]
_contexts_option = option_in("Contexts")


@expand_options(without=["pair", "target_probe", "draft_probe"])
def collect_command(
    *,
    pair: PairOptions,
    problems: Annotated[str, _problems_option(f"Where the problems come from: {PROBLEMS_HELP}")] = "demo",
    config_name: ConfigName = None,
    num_problems: NumProblems = None,
    template: Template = "none",
    traces: Annotated[
        str | None,
        _problems_option("Field with a given reasoning, used instead of one by the target.", default="none"),
    ] = None,
    answers: Annotated[
        Path | None,
        _problems_option(
            "Folder with answers of the target, such as draft align makes; used instead of traces by the target.",
            default="none",
        ),
    ] = None,
    preset: Annotated[
        str,
        _contexts_option(
            "Settings to start from: full, or one-context (6 samples in one context of each problem, among the first "
            "12 segments of one trace; segments of at most 200 tokens)."
        ),
    ] = "full",
    samples: Annotated[
        int | None,
        _contexts_option(
            "Segments that each model samples in each context.",
            min=2,
            default=f"the preset's; full: {_DEFAULT.num_samples}",
        ),
    ] = None,
    max_contexts: Annotated[
        int | None,
        _contexts_option("Maximum contexts of a problem.", min=1, default="the preset's; full: all"),
    ] = None,
    max_context_segments: Annotated[
        int | None,
        _contexts_option(
            "Take contexts only from this many segments at the start of a trace. With --one-trace, no trace is then "
            "written further than needed.",
            min=1,
            default="the preset's; full: anywhere",
        ),
    ] = None,
    loop_share: Annotated[
        float,
        _contexts_option(
            "Minimum share of contexts from text that speculative decoding wrote.", min=0, max=0.99
        ),
    ] = 0.5,
    one_trace: Annotated[
        bool | None,
        _contexts_option(
            "Take all contexts of a problem from one trace, which halves the decoding of traces.",
            "--one-trace/--two-traces",
            default="the preset's; full: --two-traces",
        ),
    ] = None,
    accept_rate: Annotated[
        float,
        _contexts_option(
            "Acceptance rate of the rule random, one of the two rules that speculative decoding uses here."
        ),
    ] = 0.7,
    max_trace_tokens: Annotated[
        int, _contexts_option("Maximum length of a trace in tokens; contexts are prefixes of it.", min=1)
    ] = _DEFAULT.max_trace_tokens,
    max_segment_tokens: Annotated[
        int | None,
        _contexts_option(
            "Maximum length of a segment in tokens. llama-cpp reserves this much of its cache for every sample.",
            min=1,
            default=f"the preset's; full: {_DEFAULT.max_segment_tokens}",
        ),
    ] = None,
    temperature: Annotated[float, decoding_option("Sampling temperature of both models.")] = 0.6,
    top_p: Annotated[float, decoding_option("Nucleus sampling of both models.")] = 0.95,
    seed: Annotated[int, decoding_option("Random seed; the same seed gives the same collection.", min=0)] = 0,
    concurrency: Annotated[
        int | None,
        decoding_option("Problems at the same time.", min=1, default="as many as have 96 samples together"),
    ] = None,
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
    from semanticspec.training.data.answers import WrittenAnswers
    from semanticspec.training.data.parquet import require_pyarrow

    require_pyarrow()
    check_output_folder(out)
    if traces is not None and answers is not None:
        raise ConfigError(
            "got --traces and --answers, which both replace the target's traces; give one of them"
        )
    layers: dict[Author, int] = {"target": target_layer, "draft": draft_layer}
    listed = read_problems(problems, num_problems, traces, config_name, template)
    given = {
        "num_samples": samples,
        "max_contexts": max_contexts,
        "max_context_segments": max_context_segments,
        "one_trace": one_trace,
        "max_segment_tokens": max_segment_tokens,
    }
    set_here: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    config = CollectConfig(
        **preset_settings(preset) | set_here,
        sampling=Sampling(temperature, top_p),
        max_trace_tokens=max_trace_tokens,
        loop_share=loop_share,
        loop_rules=(RuleConfig("top-k"), RuleConfig("random", accept_rate=accept_rate)),
        seed=seed,
    )
    written = WrittenAnswers.read(answers) if answers is not None else None
    models = stages.load_models(
        pair.target,
        pair.draft,
        {role: StateSpec(layer, cast(Pooling, pooling)) for role, layer in layers.items()},
        pair.engines,
        dtypes=pair.dtypes,
        devices=pair.devices,
    )
    collection = stages.run_collect(models, listed, config, out, concurrency, written)
    say(f"{len(listed)} problems in {collection.folder}. Next: semanticspec probe label --data {out}")
