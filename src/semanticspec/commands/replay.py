"""`semanticspec bench replay`: options in, then `session`. Importing this is light."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from semanticspec.benchmark.replay.options import (
    DEFAULT_KEPT_SHARES,
    DEFAULT_OPTIMIZATIONS,
    REPLAYED_OPTIMIZATIONS,
    ReplayOptions,
)
from semanticspec.benchmark.replay.shapes import SHAPES
from semanticspec.errors import ConfigError


def replay_command(
    folder: Annotated[
        Path | None, typer.Argument(help="A benchmark's folder, whose decisions are replayed.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="Whose decisions of those in the folder.")] = None,
    synthetic: Annotated[bool, typer.Option("--synthetic", help="A made-up trace, no folder.")] = False,
    target: Annotated[
        str, typer.Option(help=f"Shape: {', '.join(SHAPES)}, or the path of a config.json.")
    ] = "qwen2-32b",
    draft: Annotated[str, typer.Option(help="As --target.")] = "qwen2-1.5b",
    optimizations: Annotated[
        str,
        typer.Option(
            help=f"Combinations of {', '.join(REPLAYED_OPTIMIZATIONS)}, joined by +; comma-separated. "
            "Each is replayed next to the target alone and the plain loop."
        ),
    ] = ",".join(DEFAULT_OPTIMIZATIONS),
    num_requests: Annotated[
        int | None,
        typer.Option("--num-requests", "-n", min=1, help="Default: all of the folder; 1 made-up trace."),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="How often all is played: gives the spread.")] = 3,
    token_acceptance: Annotated[
        float | None,
        typer.Option(
            help="Share of proposed tokens that the target keeps, where no rows say it; made up: --draft-share."
        ),
    ] = None,
    num_tokens: Annotated[int | None, typer.Option("--tokens", help="Made up: output; default 1000.")] = None,
    prompt_tokens: Annotated[int | None, typer.Option(help="Made up: default 100.")] = None,
    segment_tokens: Annotated[int | None, typer.Option(help="Made up: mean length, default 35.")] = None,
    draft_share: Annotated[
        float | None, typer.Option(help="Made up: share of the output in accepted segments, default 0.8.")
    ] = None,
    kept_share: Annotated[
        str | None,
        typer.Option(help="Made up: of a rejected segment, by commas, default 0,0.25,0.5."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; an unfinished one is continued.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "bfloat16",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    seed: Annotated[int, typer.Option(min=0, help="Of weights and made-up traces.")] = 0,
) -> None:
    """Replay recorded or made-up decisions on models of a real size with random weights, and take the seconds.

    Decisions are replayed, not made, and weights are random. Ctrl-C keeps what is done; the same command goes on.
    """
    if out is None:
        raise ConfigError("--out is missing; name a folder for plays and summary")
    if (folder is None) != synthetic:
        raise ConfigError("expected either a benchmark's folder or --synthetic; give one of them")
    given = {
        "num_tokens": num_tokens,
        "prompt_tokens": prompt_tokens,
        "segment_tokens": segment_tokens,
        "draft_share": draft_share,
    }
    made_up = {name: value for name, value in given.items() if value is not None}
    if folder is not None and kept_share is not None:
        raise ConfigError("--kept-share is for --synthetic; a folder says what was kept")
    options = ReplayOptions(
        out=out,
        folder=folder,
        method=method,
        synthetic=made_up,
        target=target,
        draft=draft,
        optimizations=tuple(name.strip() for name in optimizations.split(",") if name.strip()),
        kept_shares=DEFAULT_KEPT_SHARES if kept_share is None else _shares(kept_share),
        num_requests=num_requests,
        token_acceptance=token_acceptance,
        trials=trials,
        seed=seed,
        dtype=dtype,
        device=device,
    )
    from semanticspec.benchmark.replay.session import run_replay

    run_replay(options)


def _shares(text: str) -> tuple[float, ...]:
    try:
        shares = tuple(float(value) for value in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--kept-share is {text!r}; expected numbers from 0, below 1, by commas") from error
    return shares
