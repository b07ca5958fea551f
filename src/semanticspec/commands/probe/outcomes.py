"""`semanticspec probe outcomes`: measures what drafted segments do to the answer, as labels for a probe."""

from __future__ import annotations

from typing import Annotated

from semanticspec.commands.option_groups import option, option_in
from semanticspec.commands.options import DEVICES_HELP, decoding_option, model_option
from semanticspec.commands.probe.collect import PROBLEMS_HELP, TEMPLATE_HELP
from semanticspec.commands.probe.label import Data
from semanticspec.engines.registry import DEFAULT_ENGINE, ENGINE_HELP
from semanticspec.output.console import print_table
from semanticspec.output.progress import say
from semanticspec.problems.sources import ProblemText, read_problems
from semanticspec.training import stages

_answers_option = option_in("Right answers")
_outcomes_option = option_in("Outcomes")


def outcomes_command(
    *,
    data: Data,
    target: Annotated[
        str | None,
        model_option("Target model: Hugging Face name, folder or GGUF file.", default="the collection's"),
    ] = None,
    engine: Annotated[str, model_option(f"Engine of the target: {ENGINE_HELP}")] = DEFAULT_ENGINE,
    dtype: Annotated[
        str, model_option("Data type: auto, float32, bfloat16 or float16 (llama-cpp: of the KV cache).")
    ] = "auto",
    device: Annotated[str, model_option(DEVICES_HELP)] = "auto",
    problems: Annotated[
        str | None,
        _answers_option(
            f"Problems of the collection with the right answer in a field answer: {PROBLEMS_HELP}",
            default="none: the majority of the target's answers counts as right",
        ),
    ] = None,
    config_name: Annotated[
        str | None, _answers_option("Configuration of a Hugging Face data set that has several.", "--config")
    ] = None,
    template: Annotated[str, _answers_option(TEMPLATE_HELP)] = "none",
    references: Annotated[
        int,
        _answers_option("Answers of the target for the majority, where the right one is not known.", min=2),
    ] = 5,
    task: Annotated[
        str, _answers_option("Benchmark task whose grader is used; custom is math-verify.")
    ] = "custom",
    samples: Annotated[
        int,
        _outcomes_option("Continuations from after each segment, and from its context without it.", min=2),
    ] = 4,
    segments: Annotated[int, _outcomes_option("Draft-written segments of each context.", min=1)] = 2,
    num_problems: Annotated[
        int | None, _outcomes_option("Number of problems to measure.", min=1, default="all")
    ] = None,
    baseline: Annotated[
        bool,
        _outcomes_option(
            "Also continue each context without a segment, to tell what segments cost.",
            "--baseline/--no-baseline",
        ),
    ] = True,
    judge: Annotated[str, option("Compare with the labels of this judge.", default="no comparison")] = "",
    max_new_tokens: Annotated[
        int, decoding_option("Maximum length of a continuation in tokens.", min=1)
    ] = 1024,
    seed: Annotated[int, decoding_option("Random seed; the same seed gives the same labels.", min=0)] = 0,
    concurrency: Annotated[
        int | None,
        decoding_option("Problems at the same time.", min=1, default="as many as have 96 samples together"),
    ] = None,
) -> None:
    """Measure outcome labels: the share of the target's continuations from after a segment that are right.

    Train on them with `semanticspec probe train --label outcome`. Interrupted runs resume: rerun the same command.
    """
    from semanticspec.benchmark.tasks import find_task
    from semanticspec.training.data.storage import Collection
    from semanticspec.training.labels.outcomes import OutcomeSettings

    settings = OutcomeSettings(
        num_samples=samples,
        segments_per_context=segments,
        baseline=baseline,
        max_new_tokens=max_new_tokens,
        num_references=references,
        task=task,
        seed=seed,
    )
    find_task(task).check_grader()
    collection = Collection(data)
    listed: list[ProblemText] = (
        [] if problems is None else read_problems(problems, config=config_name, template=template)
    )
    stages.run_outcomes(
        collection,
        settings,
        listed,
        target or collection.manifest.target.model_id,
        engine=engine,
        dtype=dtype,
        device=device,
        max_problems=num_problems,
        concurrency=concurrency,
    )
    if judge:
        from semanticspec.training.labels.comparison import compare_labels, comparison_tables

        for table in comparison_tables(compare_labels(collection, judge)):
            print_table(table)
    say(f"Next: semanticspec probe train --role target --label outcome --data {data} --out FOLDER")
