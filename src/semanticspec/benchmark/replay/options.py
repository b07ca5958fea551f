"""What a replay is asked to do. Light: the command line makes it before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPLAYED_OPTIMIZATIONS = ("partial-acceptance", "token-speculation", "overlap")
"""Optimizations that do not change the recorded decisions."""

DEFAULT_OPTIMIZATIONS = ("default", "default+overlap")
DEFAULT_KEPT_SHARES = (0.0, 0.25, 0.5)
"""Of a rejected segment, in a made-up trace."""


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """What a user asked for.

    Attributes:
        folder: of a benchmark, whose decisions are replayed; None = a made-up trace.
        method: whose decisions of those in the folder.
        synthetic: settings of the made-up trace that differ from the defaults, see `trace.Synthetic`.
        optimizations: combinations such as `overlap`, each played beside the target alone and the plain loop.
        target, draft: names of shapes or paths of a `config.json`.
        num_requests: of the folder, the first so many (None = all); of made-up traces, so many (None = 1).
        token_acceptance: share of proposed tokens that the target keeps, where it is not recorded.
    """

    out: Path
    folder: Path | None
    method: str | None
    synthetic: dict[str, Any]
    target: str
    draft: str
    optimizations: tuple[str, ...] = DEFAULT_OPTIMIZATIONS
    kept_shares: tuple[float, ...] = DEFAULT_KEPT_SHARES
    num_requests: int | None = None
    token_acceptance: float | None = None
    trials: int = 3
    seed: int = 0
    dtype: str = "bfloat16"
    device: str = "auto"
