"""`semanticspec draft`: makes a draft say what the target says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from semanticspec.commands.option_groups import option_in
from semanticspec.commands.options import decoding_option, model_option, output_option
from semanticspec.commands.probe.collect import PROBLEMS_HELP, ConfigName, NumProblems, Template
from semanticspec.errors import ConfigError
from semanticspec.output.files import check_output_file, check_output_folder
from semanticspec.output.progress import say
from semanticspec.problems.sources import read_problems
from semanticspec.records import Sampling

draft_app = typer.Typer(name="draft", help="Improve a draft: align it with the target.", no_args_is_help=True)
_problems_option = option_in("Problems")
_training_option = option_in("Training")


@draft_app.command("align")
def align_command(
    *,
    target: Annotated[str, model_option("Target model: Hugging Face name, folder or GGUF file.")],
    draft: Annotated[str, model_option("Draft model: Hugging Face name or folder with weights to train.")],
    target_engine: Annotated[str, model_option("Engine on which the target answers.")] = "auto",
    dtype: Annotated[str, model_option("Data type of both models.")] = "auto",
    device: Annotated[str, model_option("Device of both models.")] = "auto",
    problems: Annotated[
        str,
        _problems_option(
            f"What the target answers: {PROBLEMS_HELP} A field answer is the right answer, where there is one."
        ),
    ],
    config_name: ConfigName = None,
    num_problems: NumProblems = None,
    template: Template = "none",
    samples: Annotated[int, _problems_option("Answers to each problem.", min=1)] = 1,
    temperature: Annotated[
        float, decoding_option("Sampling temperature that the pair is served with.")
    ] = 0.6,
    top_p: Annotated[float, decoding_option("Nucleus sampling that the pair is served with.")] = 0.95,
    max_new_tokens: Annotated[int, decoding_option("Maximum length of an answer in tokens.", min=1)] = 4096,
    concurrency: Annotated[int, decoding_option("Answers at the same time.", min=1)] = 16,
    loss: Annotated[
        str,
        _training_option(
            "tokens (the target's tokens), kl (its distributions) or acceptance (of token-level speculation)."
        ),
    ] = "kl",
    token_epochs: Annotated[
        int, _training_option("Epochs on the target's tokens before the loss is used.", min=0)
    ] = 0,
    epochs: Annotated[
        int, _training_option("Maximum epochs; training stops early without improvement.", min=1)
    ] = 3,
    rank: Annotated[int, _training_option("Rank of the adapter.", min=1)] = 16,
    learning_rate: Annotated[float, _training_option("Largest learning rate.")] = 2e-4,
    batch_tokens: Annotated[int, _training_option("Tokens of a batch.", min=64)] = 4096,
    right_only: Annotated[
        bool, _training_option("Train on right answers only; problems need a gold answer.", "--right-only")
    ] = False,
    seed: Annotated[int, _training_option("Random seed of answers and training.", min=0)] = 0,
    merged: Annotated[
        bool, output_option("Also write the draft with the adapter merged, for every engine.", "--merged")
    ] = False,
    gguf: Annotated[
        Path | None,
        output_option(
            "GGUF file of the same draft: also write a copy with the adapter merged.", default="none"
        ),
    ] = None,
    out: Annotated[
        Path, output_option("Folder for answers and adapter. An interrupted run in it is resumed.")
    ],
) -> None:
    """Align a draft with a target: train it, by LoRA, on the target's answers to your problems.

    Reports acceptance, accuracy and length before and after, on problems that were held out. Use the adapter with
    --draft-engine transformers:adapter=OUT/adapter. Interrupted runs resume: rerun the same command.
    """
    from semanticspec.training.align.settings import AlignConfig, AnswerSettings

    check_output_folder(out)
    if gguf is not None and not gguf.is_file():
        raise ConfigError(
            f"there is no file {gguf}; --gguf takes the GGUF file of the draft before the alignment"
        )
    if loss not in ("tokens", "kl", "acceptance"):
        raise ConfigError(f"--loss is {loss!r}; expected tokens, kl or acceptance")
    listed = read_problems(problems, num_problems, config=config_name, template=template)
    config = AlignConfig(
        loss=cast(Any, loss),
        token_epochs=token_epochs,
        max_epochs=epochs,
        rank=rank,
        alpha=2.0 * rank,
        learning_rate=learning_rate,
        batch_tokens=batch_tokens,
        right_only=right_only,
        seed=seed,
    )
    settings = AnswerSettings(samples, Sampling(temperature, top_p), max_new_tokens, seed)
    from semanticspec.training.align.lora import require_peft

    require_peft()
    from semanticspec.training.align.align import Alignment, AlignModels, grader_for

    grader = grader_for(problems, listed)
    if right_only and grader is None:
        raise ConfigError(f"--right-only needs right answers, and {problems} has no field answer")
    alignment = Alignment(
        AlignModels(target, draft, target_engine, dtype, device),
        listed,
        settings,
        config,
        out,
        make_grader=grader,
        concurrency=concurrency,
    )
    report = alignment.run(merged=merged, gguf=gguf)
    _show(report)
    say(
        f"adapter in {alignment.adapter}; use it with: --draft-engine transformers:adapter={alignment.adapter}"
    )


@draft_app.command("merge")
def merge_command(
    *,
    draft: Annotated[str, model_option("Draft model: Hugging Face name or folder.")],
    adapter: Annotated[str, model_option("Its adapter: folder or Hugging Face name.")],
    dtype: Annotated[str, model_option("Data type of the merged folder.")] = "auto",
    gguf: Annotated[
        Path | None,
        output_option("GGUF file of the same draft: write a copy of it instead of a folder.", default="none"),
    ] = None,
    out: Annotated[Path, output_option("Folder, or with --gguf the file, to write.")],
) -> None:
    """Merge an adapter into a draft, for engines that do not load adapters: llama.cpp (GGUF) and vLLM (folder)."""
    if gguf is None:
        check_output_folder(out)
    else:
        check_output_file(out)
        if not gguf.is_file():
            raise ConfigError(
                f"there is no file {gguf}; --gguf takes the GGUF file of the draft before the alignment"
            )
    from semanticspec.engines.transformers.loading import load_model
    from semanticspec.text.vocabulary import Vocabulary
    from semanticspec.training.align.export import named, write_folder, write_gguf

    loaded = load_model(draft, None, dtype, "cpu", adapter)
    merged = named(loaded.model, loaded.adapter)
    if gguf is None:
        write_folder(merged, Vocabulary.load(draft), out)
        say(f"{draft} with the adapter in {out}")
    else:
        count = write_gguf(merged, gguf, out)
        say(f"{gguf} with the adapter in {count} tensors: {out}")


def _show(report: dict[str, Any]) -> None:
    """Prints the figures before and after as a table."""
    from semanticspec.output.console import TableSection, print_table
    from semanticspec.training.align.report import rows

    num_test = report["answers"]["test"]
    caption = f"On {num_test} answers of the target that the draft was not trained on."
    print_table(TableSection("Draft", caption, ("before", "after", "change"), rows(report)))
