"""The baselines by name: methods of other systems. See docs/reference/baselines.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from semanticspec.benchmark.baselines.specreason import SpecReason
from semanticspec.benchmark.baselines.speculative_thinking import SpeculativeThinking
from semanticspec.benchmark.baselines.transformers_generate import HuggingFaceAssisted, HuggingFaceTarget
from semanticspec.config import DecodingConfig
from semanticspec.decoding.pair import Pair
from semanticspec.records import Result


class Baseline(Protocol):
    """One line of a comparison.

    Attributes:
        name: as in `BASELINES`.
        lossy: whether the output's distribution can differ from the target's.
    """

    name: str
    lossy: bool

    async def solve(self, prompt: str, seed: int) -> Result:
        """Answers a prompt; the same seed gives the same text."""
        ...


BASELINES: dict[str, Callable[[Pair, DecodingConfig], Baseline]] = {
    "hf-target": HuggingFaceTarget,
    "hf-assisted": HuggingFaceAssisted,
    "specreason": SpecReason,
    "speculative-thinking": SpeculativeThinking,
}
