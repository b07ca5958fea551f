"""How a collection is made."""

from __future__ import annotations

from dataclasses import dataclass, field

from semanticspec.config import RuleConfig
from semanticspec.errors import ConfigError
from semanticspec.records import Sampling


@dataclass(frozen=True, slots=True)
class CollectConfig:
    """How a collection is made; saved in its manifest.

    Attributes:
        num_samples: n, segments by each model in each context, >= 2. Source: 20 in the paper.
        sampling: of both models. Source: 0.6 / 0.95 in the paper.
        max_segment_tokens: longest segment. Source: 500 in the paper.
        max_trace_tokens: longest reasoning to cut contexts from.
        max_contexts: at most this many contexts of a problem, None = all; drawn at random.
        loop_share: at least this share of a problem's contexts come from the loop's text, [0, 1).
        one_trace: all contexts of a problem come from one trace, for a share `loop_share` of the problems (drawn
            by id) the loop's. With few contexts a problem, writing two traces is most of the work.
        loop_rules: how the loop accepts while it writes; each problem gets one of them, by its id.
        seed: of everything random, together with the problem's id.
    """

    num_samples: int = 20
    sampling: Sampling = field(default_factory=Sampling)
    max_segment_tokens: int = 500
    max_trace_tokens: int = 8000
    max_contexts: int | None = None
    loop_share: float = 0.5
    one_trace: bool = False
    loop_rules: tuple[RuleConfig, ...] = (RuleConfig("top-k"), RuleConfig("random", accept_rate=0.7))
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_samples < 2:
            raise ConfigError(f"num_samples is {self.num_samples}; a share needs 2 or more")
        if not 0 <= self.loop_share < 1 or not self.loop_rules:
            raise ConfigError(
                f"loop_share is {self.loop_share}; expected at least 0, below 1, and some loop_rules"
            )
        if self.max_contexts is not None and self.max_contexts < 1:
            raise ConfigError(f"max_contexts is {self.max_contexts}; expected 1 or more")
