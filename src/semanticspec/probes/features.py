"""Features of a segment's tokens that a probe may use beside the pooled state.

They cost no pass of a model: every `Reading` carries the log-probabilities already, and a `Score` ranks and
entropies too. What a segment *says* and
how it is *worded* surprise a model at different places: the wording is mostly settled by the first tokens, a
wrong number is one late, deep dip. So there are features of single places beside those of the whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from semanticspec.errors import ConfigError
from semanticspec.records import Author, Reading, Score


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


_OF_LOGPROBS: dict[str, Callable[[Sequence[float]], float]] = {
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


def _excess(signals: TokenSignals) -> list[float]:
    """How much less surprising each token is than the model expected: log-probability plus entropy, nats.

    Below zero where the model was sure of something else, around zero where it did not care.
    """
    return [a + b for a, b in zip(signals.logprobs, signals.entropies, strict=True)]


_OF_RANKS: dict[str, Callable[[TokenSignals], float]] = {
    "agreement": lambda signals: sum(rank == 1 for rank in signals.ranks) / len(signals.ranks),
    "top_2_share": lambda signals: sum(rank <= 2 for rank in signals.ranks) / len(signals.ranks),
    "worst_rank": lambda signals: math.log(max(signals.ranks)),
}
_OF_ENTROPIES: dict[str, Callable[[TokenSignals], float]] = {
    "entropy": lambda signals: -sum(signals.entropies) / len(signals.entropies),
    "highest_entropy": lambda signals: max(signals.entropies),
    "excess_sum": lambda signals: sum(_excess(signals)),
    "excess_minimum": lambda signals: min(_excess(signals)),
}


def _on_logprobs(function: Callable[[Sequence[float]], float]) -> Callable[[TokenSignals], float]:
    return lambda signals: function(signals.logprobs)


FEATURES: Mapping[str, Callable[[TokenSignals], float]] = MappingProxyType(
    {name: _on_logprobs(function) for name, function in _OF_LOGPROBS.items()} | _OF_RANKS | _OF_ENTROPIES
)
"""All features by name. Each takes the signals of a segment's tokens, at least one; see `features_for`.

`agreement`: share of tokens that are the model's favourite; `entropy`: its mean, negated, so that more is better.
"""

CHEAP_SIGNALS = ("mean", "minimum", "sum", "entropy", "agreement")
"""Features that every probe is compared with, where they are recorded: a probe has to earn its place beside
them."""


def features_for(role: Author) -> tuple[str, ...]:
    """The features a role's probe can use. The draft is asked about what it wrote itself, so its passes have
    neither ranks nor entropies."""
    return tuple(FEATURES) if role == "target" else tuple(_OF_LOGPROBS)


def named_features(text: str, role: Author) -> tuple[str, ...]:
    """The features of a list by commas; `all` that the role can use, or the `portable` ones.

    Portable are those that every engine's readings have: all but those of entropies.
    """
    if text == "all":
        return features_for(role)
    if text == "portable":
        return tuple(name for name in features_for(role) if name not in _OF_ENTROPIES)
    return tuple(filter(None, text.split(",")))


def needs_entropies(names: Sequence[str]) -> bool:
    """Whether one of the features is made of entropies, which not every engine gives."""
    return any(name in _OF_ENTROPIES for name in names)


def check_features(names: Sequence[str], role: Author | None = None) -> None:
    """Raises ConfigError for a name that is no feature, is given twice, or is not there for the role."""
    for position, name in enumerate(names):
        if name not in FEATURES:
            raise ConfigError(f"unknown probe feature {name!r}; expected any of {', '.join(FEATURES)}")
        if name in names[:position]:
            raise ConfigError(f"probe feature {name!r} is given twice")
        if role is not None and name not in features_for(role):
            raise ConfigError(
                f"the {role}'s probe cannot use the feature {name!r}, which is read off another model's text; "
                f"expected any of {', '.join(features_for(role))}"
            )


def compute_features(names: Sequence[str], signals: TokenSignals) -> list[float]:
    """The named features of one segment, in the order of the names.

    Raises:
        ConfigError: a feature needs ranks or entropies, and the pass has none.
    """
    for needed, recorded, of in (
        ("ranks", signals.ranks, _OF_RANKS),
        ("entropies", signals.entropies, _OF_ENTROPIES),
    ):
        if not recorded and (missing := [name for name in names if name in of]):
            raise ConfigError(
                f"the probe features {', '.join(missing)} need {needed}, which this pass of the model has not; "
                "leave them out, or use an engine (and a collection) that records them"
            )
    clipped = tuple(max(value, LOWEST_LOGPROB) for value in signals.logprobs)
    bounded = TokenSignals(clipped, signals.ranks, signals.entropies)
    return [float(FEATURES[name](bounded)) for name in names]
