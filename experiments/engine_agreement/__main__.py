"""Compares probe decisions between engines: `python -m experiments.engine_agreement record|compare`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semanticspec.commands.main import run
from semanticspec.commands.option_groups import expand_options, option
from semanticspec.commands.options import PairOptions, SamplingOptions, output_option
from semanticspec.commands.probe.collect import PROBLEMS_HELP
from semanticspec.errors import ProbeError
from semanticspec.output.progress import progress_bar, say
from semanticspec.problems.sources import ProblemText, read_problems

if TYPE_CHECKING:
    from experiments.engine_agreement.agreement import Agreement
    from experiments.engine_agreement.recordings import Recordings
    from semanticspec.config import DecodingConfig
    from semanticspec.decoding.pair import Pair


@expand_options(without=["rule", "optimizations", "levers"])
def record_segments_command(
    pair: PairOptions,
    sampling: SamplingOptions,
    out: Annotated[Path, output_option("File for the segments. An unfinished one is continued.")],
    problems: Annotated[str, option(f"Where the problems come from: {PROBLEMS_HELP}")] = "demo",
    num_segments: Annotated[int, option("Minimum number of segments.", min=2)] = 200,
) -> None:
    """Record segments that a pair drafts, and its probes' decisions on them, for `compare`."""
    config = sampling.config()
    listed = read_problems(problems)
    from experiments.engine_agreement.recordings import Recordings

    recordings = Recordings(out)
    asyncio.run(_record(recordings, pair.load(), listed, config, num_segments))
    say(
        f"{len(recordings)} segments in {out}. Next: python -m experiments.engine_agreement compare {out} --engine ..."
    )


@expand_options()
def agreement_command(
    pair: PairOptions,
    segments: Annotated[Path, typer.Argument(help="File written by `record`.")],
    num_segments: Annotated[
        int | None, option("Number of segments, from the start.", min=2, default="all")
    ] = None,
    as_json: Annotated[bool, output_option("Print a JSON object instead of a table.", "--json")] = False,
) -> None:
    """Judge recorded segments in other engines: the share of equal decisions, and how far the estimates differ."""
    from experiments.engine_agreement.recordings import Recordings, figures, table

    if not segments.is_file():
        raise ProbeError(
            f"there is no file {str(segments)!r}; make one with `python -m experiments.engine_agreement record`"
        )
    recordings = Recordings(segments)
    agreement = asyncio.run(_compare(recordings, pair.load(), num_segments))
    name = f"{' + '.join(dict.fromkeys(pair.engines.values()))}, {' and '.join(dict.fromkeys(pair.dtypes.values()))}"
    typer.echo(
        json.dumps(figures(name, recordings, agreement), indent=1) if as_json else table(name, agreement)
    )


async def _record(
    recordings: Recordings, pair: Pair, problems: list[ProblemText], config: DecodingConfig, num_segments: int
) -> None:
    try:
        pair.check(config)
        with progress_bar("recording") as (advance, on_total):
            on_total(num_segments - len(recordings))
            await recordings.extend(pair, problems, config, num_segments, advance)
    finally:
        await pair.aclose()


async def _compare(recordings: Recordings, pair: Pair, num_segments: int | None) -> Agreement:
    try:
        with progress_bar("judging") as (advance, on_total):
            on_total(num_segments or len(recordings))
            return await recordings.compare(pair, num_segments, advance)
    finally:
        await pair.aclose()


app = typer.Typer(no_args_is_help=True)
app.command("record")(record_segments_command)
app.command("compare")(agreement_command)

if __name__ == "__main__":
    run(app)
