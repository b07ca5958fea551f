"""The command line: parses and dispatches. Errors made on purpose end in one line and exit code 2."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Annotated, Any

import typer

from semanticspec import __version__
from semanticspec.commands.bench import bench_app
from semanticspec.commands.bundled import register_bundled
from semanticspec.commands.options import Device, Dtype, EngineName, EngineOfOne, ModelName
from semanticspec.commands.probe import probe_app
from semanticspec.commands.serve import serve_command
from semanticspec.config import (
    AUTO_OPTIMIZATIONS,
    OPTIMIZATIONS_HELP,
    PRESETS,
    RULES,
    DecodingConfig,
    preset,
    with_options,
)
from semanticspec.engines.registry import DEFAULT_ENGINE
from semanticspec.errors import PromptError, SemanticSpecError
from semanticspec.records import Result

app = typer.Typer(
    name="semanticspec",
    help="Semantic-aware speculative decoding: reasoning models answer faster.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(probe_app, name="probe")
app.add_typer(bench_app, name="bench")
app.command("serve")(serve_command)

ProbeName = Annotated[
    str | None,
    typer.Option(
        help="Probe: folder, packaged name (probe list) or hub name; the bundled pair brings its own."
    ),
]
Rule = Annotated[str | None, typer.Option(help=f"Which drafted segments are kept: {', '.join(RULES)}.")]
Preset = Annotated[str, typer.Option("--preset", help=f"{' or '.join(PRESETS)} (as published).")]
Strictness = Annotated[float | None, typer.Option(help="Above 0; 1 is the paper's rule, larger keeps less.")]
Optimizations = Annotated[
    str, typer.Option(help=f"What makes it faster beyond the paper. {OPTIMIZATIONS_HELP}")
]
MaxNewTokens = Annotated[int | None, typer.Option(help="Longest output, in target tokens.")]
Temperature = Annotated[float | None, typer.Option(help="0 is greedy; default 0.6.")]
TopP = Annotated[float | None, typer.Option(help="Share of probability kept when sampling; default 0.95.")]
Seed = Annotated[int, typer.Option(help="The same seed gives the same text.")]
DeviceOfOne = Annotated[
    str | None, typer.Option(help="The same for one of the two models; default: --device.")
]


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What the model is asked.")],
    target: ModelName = None,
    draft: ModelName = None,
    target_probe: ProbeName = None,
    draft_probe: ProbeName = None,
    rule: Rule = None,
    preset_name: Preset = "default",
    strictness: Strictness = None,
    optimizations: Optimizations = AUTO_OPTIMIZATIONS,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: Seed = 0,
    engine: EngineName = DEFAULT_ENGINE,
    target_engine: EngineOfOne = None,
    draft_engine: EngineOfOne = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    target_device: DeviceOfOne = None,
    draft_device: DeviceOfOne = None,
    stream: Annotated[bool, typer.Option(help="Show text as it is decided.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Answer a prompt. Green text was written by the draft, cyan by the target; struck through was rejected.

    Keeping drafted segments by their meaning is lossy: the output can differ from the target's own. The rule
    `token` is lossless.
    """
    config = with_options(
        preset(preset_name),
        rule=rule,
        strictness=strictness,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        optimizations=optimizations,
    )
    if not prompt.strip():
        raise PromptError("the prompt is empty; give some text to answer")
    from semanticspec.commands.view import closing_line, result_json
    from semanticspec.loading import load_pair
    from semanticspec.output.console import messages

    pair = load_pair(
        target,
        draft,
        target_probe=target_probe,
        draft_probe=draft_probe,
        target_engine=target_engine or engine,
        draft_engine=draft_engine or engine,
        dtype=dtype,
        device=device,
        target_device=target_device,
        draft_device=draft_device,
    )
    if optimizations == AUTO_OPTIMIZATIONS and preset_name == "default":
        config = pair.with_default_optimizations(config)
    result = asyncio.run(_show(pair, prompt, config, stream=stream, quiet=as_json))
    if as_json:
        typer.echo(result_json(result))
    else:
        messages().print(closing_line(result), style="dim")


@app.command()
def demo(
    num_problems: Annotated[int, typer.Option("--num-problems", "-n", min=1, help="How many problems.")] = 5,
    methods: Annotated[
        str, typer.Option(help="What to compare, by commas: those of `bench`.")
    ] = "target,semantic,semantic+partial-acceptance+token-speculation",
    split: Annotated[str, typer.Option(help="test or validation problems.")] = "test",
    rule: Rule = None,
    preset_name: Preset = "default",
    strictness: Strictness = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Write the figures to this JSON file.")] = None,
    quiet: Annotated[bool, typer.Option(help="Show the table only, not every problem.")] = False,
) -> None:
    """Solve problems the bundled pair has never seen: the target alone beside speculative decoding."""
    config = with_options(
        preset(preset_name), rule=rule, strictness=strictness, temperature=temperature, top_p=top_p, seed=seed
    )
    from semanticspec.commands.demo import run_demo

    run_demo(config, methods.split(","), split, num_problems, out, quiet=quiet)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"semanticspec {__version__}")
        raise typer.Exit


def main() -> None:
    """Entry point of the `semanticspec` command."""
    run(app)


def run(command: typer.Typer | Callable[..., None]) -> None:
    """Runs a command: expected errors end in one line and exit code 2."""
    register_bundled()
    try:
        command(standalone_mode=True) if isinstance(command, typer.Typer) else typer.run(command)
    except SemanticSpecError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


async def _show(pair: Any, prompt: str, config: DecodingConfig, *, stream: bool, quiet: bool) -> Result:
    """Decodes one request, printing events unless quiet."""
    from semanticspec.commands.view import RequestView
    from semanticspec.decoding.loop import decode
    from semanticspec.loading import BUNDLED
    from semanticspec.records import Finished

    view = RequestView(stream=stream)
    try:
        request = decode(pair, prompt, config)
        if pair.name == BUNDLED:
            _warn_outside_grammar(prompt)
        async with aclosing(request) as events:
            async for event in events:
                if not quiet:
                    view.show(event)
                if isinstance(event, Finished):
                    return event.result
    finally:
        await pair.aclose()
    raise AssertionError("a request ends with Finished")


def _warn_outside_grammar(prompt: str) -> None:
    from semanticspec.demo.grammar import read_problem
    from semanticspec.output.console import messages

    if read_problem(prompt) is None:
        messages().print(
            "warning: the bundled pair knows only small word problems such as 'Mia has 14 pens. Mia buys 23 more. "
            "How many pens does Mia have?', and this is none; expect nonsense, or give --target and --draft",
            style="yellow",
        )
