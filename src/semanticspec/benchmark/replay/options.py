"""Options of a replay. Importing this module is cheap."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPLAYED_OPTIMIZATIONS = ("partial-acceptance", "token-speculation", "overlap")
"""Optimizations that do not change the recorded decisions."""

DEFAULT_OPTIMIZATIONS = ("default", "default+overlap")
DEFAULT_KEPT_SHARES = (0.0, 0.25, 0.5)
"""Share of a rejected segment that is kept, in synthetic traces."""


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """Options of a replay.

    Attributes:
        folder: a benchmark folder whose decisions are replayed; None = a synthetic trace.
        method: the method in the folder whose decisions are replayed.
        synthetic: settings of the synthetic trace that differ from the defaults, see `trace.Synthetic`.
        optimizations: combinations such as `overlap`, each replayed next to the target alone and the plain loop.
        target, draft: names of shapes or paths of a `config.json`.
        num_requests: how many requests of the folder (None = all) or how many synthetic traces (None = 1).
        token_acceptance: share of proposed tokens that the target keeps, if it is not recorded.
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
