"""Do probes say the same through another engine? `python -m experiments.engine_agreement record|compare`."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semanticspec.commands.main import run
from semanticspec.commands.options import Device, Dtype, EngineName, EngineOfOne, ModelName
from semanticspec.config import preset, with_options
from semanticspec.engines.registry import DEFAULT_ENGINE
from semanticspec.errors import ProbeError
from semanticspec.output.progress import progress_bar, say
from semanticspec.training.data.problems import ProblemText, read_problems

if TYPE_CHECKING:
    from experiments.engine_agreement.agreement import Agreement
    from experiments.engine_agreement.recordings import Recordings
    from semanticspec.config import DecodingConfig
    from semanticspec.decoding.pair import Pair

ProbeName = Annotated[str | None, typer.Option(help="Folder, packaged or hub name.")]


def record_segments_command(
    out: Annotated[
        Path, typer.Option(help="File for the recorded segments; an unfinished one is continued.")
    ],
    problems: Annotated[
        str,
        typer.Option(
            help="demo, a JSONL file with a prompt (and id) a line, or a hub data set ORG/NAME[:SPLIT]."
        ),
    ] = "demo",
    num_segments: Annotated[int, typer.Option(min=2, help="At least so many.")] = 200,
    target: ModelName = None,
    draft: ModelName = None,
    target_probe: ProbeName = None,
    draft_probe: ProbeName = None,
    strictness: Annotated[float | None, typer.Option(help="Above 0; default: the preset's.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Longest output, in target tokens.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed records the same segments.")] = 0,
    engine: EngineName = DEFAULT_ENGINE,
    target_engine: EngineOfOne = None,
    draft_engine: EngineOfOne = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
) -> None:
    """Record segments that a pair drafts, and its probes' verdicts on them, for `compare`."""
    config = with_options(preset("default"), strictness=strictness, max_new_tokens=max_new_tokens, seed=seed)
    listed = read_problems(problems)
    from experiments.engine_agreement.recordings import Recordings

    recordings = Recordings(out)
    pair = _load(
        target,
        draft,
        target_probe,
        draft_probe,
        (target_engine or engine, draft_engine or engine),
        dtype,
        device,
    )
    asyncio.run(_record(recordings, pair, listed, config, num_segments))
    say(
        f"{len(recordings)} segments in {out}. Next: python -m experiments.engine_agreement compare {out} --engine ..."
    )


def agreement_command(
    segments: Annotated[Path, typer.Argument(help="File that `record` wrote.")],
    num_segments: Annotated[int | None, typer.Option(min=2, help="The first so many; default: all.")] = None,
    target: ModelName = None,
    draft: ModelName = None,
    target_probe: ProbeName = None,
    draft_probe: ProbeName = None,
    engine: EngineName = DEFAULT_ENGINE,
    target_engine: EngineOfOne = None,
    draft_engine: EngineOfOne = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object instead of a table.")] = False,
) -> None:
    """Judge recorded segments through other engines: share of equal verdicts, differences of the estimates."""
    from experiments.engine_agreement.recordings import Recordings, figures, table

    if not segments.is_file():
        raise ProbeError(
            f"there is no file {str(segments)!r}; make one with `python -m experiments.engine_agreement record`"
        )
    recordings = Recordings(segments)
    engines = target_engine or engine, draft_engine or engine
    pair = _load(target, draft, target_probe, draft_probe, engines, dtype, device)
    agreement = asyncio.run(_compare(recordings, pair, num_segments))
    name = f"{engines[0]}, {dtype}" if engines[0] == engines[1] else f"{' + '.join(engines)}, {dtype}"
    typer.echo(
        json.dumps(figures(name, recordings, agreement), indent=1) if as_json else table(name, agreement)
    )


def _load(
    target: str | None,
    draft: str | None,
    target_probe: str | None,
    draft_probe: str | None,
    engines: tuple[str, str],
    dtype: str,
    device: str,
) -> Pair:
    from semanticspec.loading import load_pair

    return load_pair(
        target,
        draft,
        target_probe=target_probe,
        draft_probe=draft_probe,
        target_engine=engines[0],
        draft_engine=engines[1],
        dtype=dtype,
        device=device,
    )


async def _record(
    recordings: Recordings,
    pair: Pair,
    problems: list[ProblemText],
    config: DecodingConfig,
    num_segments: int,
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
