"""Features of a segment's log-probabilities that a probe may use beside the pooled state.

They cost no pass of a model: every `Reading` carries the log-probabilities already. What a segment *says* and
how it is *worded* surprise a model at different places: the wording is mostly settled by the first tokens, a
wrong number is one late, deep dip. So there are features of single places beside those of the whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from semanticspec.errors import ConfigError
from semanticspec.records import Reading, Score


@dataclass(frozen=True, slots=True)
class TokenSignals:
    """What one pass says about each token of a segment, beside the state.

    Attributes:
        logprobs: raw log-probabilities, nats; at least one.
        ranks: 1 = the model's favourite. Empty where the pass was the writer's own.
        entropies: of the raw distributions, nats. Empty as above, or where the engine cannot say.
    """

    logprobs: tuple[float, ...]
    ranks: tuple[int, ...] = ()
    entropies: tuple[float, ...] = ()


def signals_of(reading: Reading) -> TokenSignals:
    """The signals of a pass; a generation has no ranks and entropies."""
    if isinstance(reading, Score):
        return TokenSignals(reading.logprobs, reading.ranks, reading.entropies)
    return TokenSignals(reading.logprobs)


LOWEST_LOGPROB = -20.0
"""Log-probabilities (nats) are clipped here, so that a token held impossible stays a number."""

_LOG_HALF = math.log(0.5)
_LOG_TENTH = math.log(0.1)
_LOG_HUNDREDTH = math.log(0.01)


def _lowest(logprobs: Sequence[float], rank: int) -> float:
    """The rank-th lowest value (1 = the lowest); 0.0, a sure token, where there are not so many."""
    return sorted(logprobs)[rank - 1] if len(logprobs) >= rank else 0.0


def _lowest_in_quarter(logprobs: Sequence[float], quarter: int) -> float:
    """The lowest value in one quarter (0..3) of the segment; 0.0 where the quarter is empty."""
    start, end = quarter * len(logprobs) // 4, (quarter + 1) * len(logprobs) // 4
    return min(logprobs[start:end], default=0.0)


def _share_of_lowest(logprobs: Sequence[float]) -> float:
    """Where in the segment the lowest value is: 0.0 its first token, towards 1.0 its last."""
    return logprobs.index(min(logprobs)) / len(logprobs)


_FEATURES: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": lambda logprobs: sum(logprobs) / len(logprobs),
    "sum": sum,
    "minimum": min,
    "second_lowest": lambda logprobs: _lowest(logprobs, 2),
    "third_lowest": lambda logprobs: _lowest(logprobs, 3),
    "length": lambda logprobs: math.log(len(logprobs)),
    "below_half": lambda logprobs: sum(value < _LOG_HALF for value in logprobs),
    "below_tenth": lambda logprobs: sum(value < _LOG_TENTH for value in logprobs),
    "below_hundredth": lambda logprobs: sum(value < _LOG_HUNDREDTH for value in logprobs),
    "first": lambda logprobs: logprobs[0],
    "last": lambda logprobs: logprobs[-1],
    "place_of_minimum": _share_of_lowest,
    "minimum_quarter_1": lambda logprobs: _lowest_in_quarter(logprobs, 0),
    "minimum_quarter_2": lambda logprobs: _lowest_in_quarter(logprobs, 1),
    "minimum_quarter_3": lambda logprobs: _lowest_in_quarter(logprobs, 2),
    "minimum_quarter_4": lambda logprobs: _lowest_in_quarter(logprobs, 3),
}

FEATURES: Mapping[str, Callable[[Sequence[float]], float]] = MappingProxyType(_FEATURES)
"""All features by name. Each takes the log-probabilities (nats) of a segment's tokens, at least one."""

CHEAP_SIGNALS = ("mean", "minimum", "sum")
"""Features that every probe is compared with: a probe has to earn its place beside them."""


def check_features(names: Sequence[str]) -> None:
    """Raises ConfigError for a name that is no feature, or is given twice."""
    for position, name in enumerate(names):
        if name not in FEATURES:
            raise ConfigError(f"unknown probe feature {name!r}; expected any of {', '.join(FEATURES)}")
        if name in names[:position]:
            raise ConfigError(f"probe feature {name!r} is given twice")


def compute_features(names: Sequence[str], signals: TokenSignals) -> list[float]:
    """The named features of one segment, in the order of the names."""
    clipped = [max(value, LOWEST_LOGPROB) for value in signals.logprobs]
    return [float(FEATURES[name](clipped)) for name in names]
