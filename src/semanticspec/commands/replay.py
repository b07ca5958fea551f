"""`semanticspec bench replay`: measures speed at the size of large models, with random weights."""

from __future__ import annotations

from dataclasses import asdict, dataclass
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
from semanticspec.commands.option_groups import expand_options, option, option_in
from semanticspec.commands.options import DEVICES_HELP, model_option, output_option, renamed_levers
from semanticspec.errors import ConfigError

_synthetic_option = option_in("Synthetic trace")
_SHAPE_HELP = f"{', '.join(SHAPES)}, or the path of a config.json."


@dataclass(frozen=True)
class SyntheticOptions:
    """Options that describe a synthetic trace; None is the default of `trace.Synthetic`."""

    num_tokens: Annotated[
        int | None, _synthetic_option("Output length in tokens.", "--tokens", default="1000")
    ] = None
    prompt_tokens: Annotated[int | None, _synthetic_option("Prompt length in tokens.", default="100")] = None
    segment_tokens: Annotated[
        int | None, _synthetic_option("Mean length of a segment in tokens.", default="35")
    ] = None
    draft_share: Annotated[
        float | None, _synthetic_option("Share of the output in accepted segments.", default="0.8")
    ] = None
    kept_share: Annotated[
        str | None,
        _synthetic_option(
            "Comma-separated shares of a rejected segment that partial acceptance keeps.",
            default=",".join(f"{share:g}" for share in DEFAULT_KEPT_SHARES),
        ),
    ] = None


@expand_options()
def replay_command(
    trace: SyntheticOptions,
    folder: Annotated[
        Path | None,
        typer.Argument(help="Folder of a benchmark whose decisions are replayed.", show_default="none"),
    ] = None,
    method: Annotated[
        str | None, option("Method whose decisions are replayed; required with a folder.")
    ] = None,
    synthetic: Annotated[
        bool, option("Replay a synthetic trace instead of a folder.", "--synthetic")
    ] = False,
    optimizations: Annotated[
        str,
        option(
            f"Comma-separated combinations of {', '.join(REPLAYED_OPTIMIZATIONS)} and default, each joined by +. "
            "They are compared with the target alone and with the loop without optimizations."
        ),
    ] = ",".join(DEFAULT_OPTIMIZATIONS),
    levers: Annotated[str | None, typer.Option(hidden=True)] = None,
    num_requests: Annotated[
        int | None,
        option(
            "Number of requests to replay.",
            "--num-requests",
            "-n",
            min=1,
            default="all of the folder; 1 synthetic trace",
        ),
    ] = None,
    trials: Annotated[int, option("Repetitions, to measure the spread.", min=1)] = 3,
    token_acceptance: Annotated[
        float | None,
        option(
            "Share of speculative tokens that the target accepts, if the folder has not recorded it.",
            default="as recorded; synthetic: --draft-share",
        ),
    ] = None,
    seed: Annotated[int, option("Random seed of weights and synthetic traces.", min=0)] = 0,
    target: Annotated[str, model_option(f"Shape of the target: {_SHAPE_HELP}")] = "qwen2-32b",
    draft: Annotated[str, model_option(f"Shape of the draft: {_SHAPE_HELP}")] = "qwen2-1.5b",
    dtype: Annotated[
        str, model_option("Data type of both models: float32, bfloat16 or float16.")
    ] = "bfloat16",
    device: Annotated[str, model_option(f"Device of both models: {DEVICES_HELP}")] = "auto",
    out: Annotated[
        Path | None,
        output_option("Folder for measurements and summary; required. An interrupted run in it is resumed."),
    ] = None,
) -> None:
    """Replay recorded or synthetic decisions on models of a real size with random weights, and measure the time.

    Decisions are replayed, not made; texts are random. Interrupted runs resume: rerun the same command.
    """
    if out is None:
        raise ConfigError("--out is missing; expected a folder for measurements and summary")
    if (folder is None) != synthetic:
        raise ConfigError("expected either a benchmark's folder or --synthetic; give exactly one of them")
    given = {name: value for name, value in asdict(trace).items() if value is not None}
    kept_share = given.pop("kept_share", None)
    if folder is not None and kept_share is not None:
        raise ConfigError("--kept-share is for --synthetic traces; a folder has recorded it, so leave it out")
    combinations = renamed_levers(optimizations, levers)
    options = ReplayOptions(
        out=out,
        folder=folder,
        method=method,
        synthetic=given,
        target=target,
        draft=draft,
        optimizations=tuple(name.strip() for name in combinations.split(",") if name.strip()),
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
    """Returns the values of `--kept-share`."""
    try:
        return tuple(float(value) for value in text.split(","))
    except ValueError as error:
        raise ConfigError(
            f"--kept-share is {text!r}; expected comma-separated numbers from 0, below 1"
        ) from error
