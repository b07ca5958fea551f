"""`semanticspec generate`: answers one prompt."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import typer

from semanticspec.commands.option_groups import expand_options, option
from semanticspec.commands.options import PairOptions, SamplingOptions, decoding_option, output_option
from semanticspec.commands.prompt_argument import read_prompt
from semanticspec.commands.view import RequestView, closing_line, result_json
from semanticspec.config import DecodingConfig, with_options
from semanticspec.decoding.generate import decode
from semanticspec.decoding.pair import Pair
from semanticspec.demo.grammar import read_problem
from semanticspec.loading import BUNDLED
from semanticspec.output.console import messages
from semanticspec.records import Finished, Result


@expand_options()
def generate_command(
    pair: PairOptions,
    sampling: SamplingOptions,
    prompt: Annotated[
        str | None,
        typer.Argument(
            help="The prompt, as the content of a user message; - reads standard input, -- goes "
            "before one that looks like an option."
        ),
    ] = None,
    file: Annotated[
        Path | None, option("Read the prompt from this UTF-8 text file.", "--file", default="none")
    ] = None,
    stop: Annotated[
        list[str] | None,
        decoding_option("End the output before this text; repeat the option for several.", default="none"),
    ] = None,
    stream: Annotated[bool, output_option("Print text as soon as it is decided.")] = True,
    as_json: Annotated[bool, output_option("Print one JSON object instead of text.", "--json")] = False,
) -> None:
    """Answer a prompt.

    In a terminal, text by the draft is green, text by the target cyan, and rejected text is struck through.

    Accepting drafted segments by their meaning is lossy: the output can differ from the target's own. The rule token
    is lossless.
    """
    config = with_options(sampling.config(), stop=stop)
    text = read_prompt(prompt, file)
    loaded = pair.load()
    config = loaded.resolve(config)
    result = asyncio.run(_generate(loaded, text, config, stream=stream, quiet=as_json))
    if as_json:
        typer.echo(result_json(result, loaded, config))
    else:
        messages().print(closing_line(result), style="dim")


async def _generate(pair: Pair, prompt: str, config: DecodingConfig, *, stream: bool, quiet: bool) -> Result:
    """Decodes one request and closes the pair; prints the text unless `quiet`."""
    view = RequestView(stream=stream)
    try:
        events = decode(pair, prompt, config)
        if pair.name == BUNDLED:
            _warn_outside_grammar(prompt)
        async with aclosing(events):
            async for event in events:
                if not quiet:
                    view.show(event)
                if isinstance(event, Finished):
                    return event.result
    finally:
        await pair.aclose()
    raise AssertionError("a request ends with Finished")


def _warn_outside_grammar(prompt: str) -> None:
    """Warns if the bundled pair was not trained for this kind of prompt."""
    if read_problem(prompt) is None:
        messages().print(
            "warning: the bundled pair only solves small word problems such as 'Mia has 14 pens. Mia buys 23 more. "
            "How many pens does Mia have?'; for other prompts, choose a pair with --target and --draft",
            style="yellow",
        )
