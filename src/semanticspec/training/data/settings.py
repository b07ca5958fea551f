"""The settings of a collection."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from semanticspec.config import RuleConfig
from semanticspec.errors import ConfigError
from semanticspec.records import Sampling

COLLECT_PRESETS: dict[str, dict[str, Any]] = {
    "full": {},
    "one-context": {
        "num_samples": 6,
        "max_contexts": 1,
        "one_trace": True,
        "max_context_segments": 12,
        "max_segment_tokens": 200,
    },
}
"""Settings that differ from the defaults. `one-context` collects little on each of many problems, since segments of one
problem resemble each other."""

_CONCURRENT_SAMPLES = 96
_MIN_CONCURRENCY = 4
_LATER_FIELDS = ("max_context_segments",)


@dataclass(frozen=True, slots=True)
class CollectConfig:
    """The settings of a collection; saved in its manifest.

    Attributes:
        num_samples: segments that each model writes in each context, >= 2. Source: 20 in the paper.
        sampling: temperature and top-p of both models. Source: 0.6 and 0.95 in the paper.
        max_segment_tokens: length limit of a segment. Source: 500 in the paper.
        max_trace_tokens: length limit of the reasoning traces that contexts are taken from.
        max_contexts: limit on the contexts of a problem, drawn at random; None for no limit.
        loop_share: minimum share, in [0, 1), of a problem's contexts that come from traces of the speculative loop.
        one_trace: takes all contexts of a problem from a single trace, which the loop writes for the share
            `loop_share` of the problems (drawn by id). Saves most of the work if `max_contexts` is small.
        max_context_segments: draws contexts among the starts of the first so many segments of a trace, and writes no
            trace further than to the last context that is needed; None = anywhere, so that traces are written whole.
            See `contexts`.
        loop_rules: acceptance rules of the loop that writes traces; each problem uses one, chosen by its id.
        seed: seeds everything random, together with the problem's id.
    """

    num_samples: int = 20
    sampling: Sampling = field(default_factory=Sampling)
    max_segment_tokens: int = 500
    max_trace_tokens: int = 8000
    max_contexts: int | None = None
    loop_share: float = 0.5
    one_trace: bool = False
    max_context_segments: int | None = None
    loop_rules: tuple[RuleConfig, ...] = (RuleConfig("top-k"), RuleConfig("random", accept_rate=0.7))
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_samples < 2:
            raise ConfigError(f"num_samples is {self.num_samples}; expected 2 or more")
        if not 0 <= self.loop_share < 1:
            raise ConfigError(f"loop_share is {self.loop_share}; expected at least 0 and below 1")
        if not self.loop_rules:
            raise ConfigError("loop_rules is empty; expected at least one rule")
        if self.max_contexts is not None and self.max_contexts < 1:
            raise ConfigError(f"max_contexts is {self.max_contexts}; expected 1 or more")
        if self.max_context_segments is not None and self.max_context_segments < 1:
            raise ConfigError(f"max_context_segments is {self.max_context_segments}; expected 1 or more")

    @property
    def default_concurrency(self) -> int:
        """Problems to collect at the same time, so that engines decode about 96 samples in one batch.

        A pass over a hundred rows takes little longer than over one, since moving the weights dominates.
        """
        return max(_MIN_CONCURRENCY, _CONCURRENT_SAMPLES // self.num_samples)

    def recorded(self) -> dict[str, Any]:
        """Returns the settings for manifests and digests, without later ones at their defaults.

        Collections of earlier versions, which do not name them, can therefore be resumed.
        """
        defaults = {setting.name: setting.default for setting in fields(self)}
        values = asdict(self)
        return {
            name: value
            for name, value in values.items()
            if name not in _LATER_FIELDS or value != defaults[name]
        }


def preset_settings(name: str) -> dict[str, Any]:
    """Returns what a preset sets.

    Raises:
        ConfigError: There is no such preset.
    """
    if name not in COLLECT_PRESETS:
        raise ConfigError(f"the preset is {name!r}; expected one of {', '.join(COLLECT_PRESETS)}")
    return COLLECT_PRESETS[name]
