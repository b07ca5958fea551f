"""Features of a segment's tokens that a probe can read beside the pooled state.

They need no extra forward pass: every `Reading` has log-probabilities, and a `Score` has ranks and entropies too.
The meaning and the wording of a segment surprise a model at different positions: the first tokens mostly settle the
wording, while a wrong number is a single late, deep dip. So there are features of single positions, not only of the
whole segment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from semanticspec.errors import ConfigError
from semanticspec.records import Author, Reading, Score

LOWEST_LOGPROB = -20.0
"""Lower bound of log-probabilities (nats), so that a token with probability 0 stays finite."""


@dataclass(frozen=True, slots=True)
class TokenSignals:
    """What one pass says about each token of a segment, beside the state.

    Attributes:
        logprobs: raw log-probabilities, nats; at least one.
        ranks: 1 = the model's most probable token. Empty if the model generated the segment itself.
        entropies: of the raw distributions, nats. Empty as for ranks, or if the engine does not give them.
    """

    logprobs: tuple[float, ...]
    ranks: tuple[int, ...] = ()
    entropies: tuple[float, ...] = ()


def signals_of(reading: Reading) -> TokenSignals:
    """Returns the signals of a pass; a generation has neither ranks nor entropies."""
    if isinstance(reading, Score):
        return TokenSignals(reading.logprobs, reading.ranks, reading.entropies)
    return TokenSignals(reading.logprobs)


def _nth_lowest(n: int) -> Callable[[Sequence[float]], float]:
    """The n-th lowest value (1 = the lowest); 0.0, a certain token, if there are fewer."""
    return lambda logprobs: sorted(logprobs)[n - 1] if len(logprobs) >= n else 0.0


def _count_below(probability: float) -> Callable[[Sequence[float]], float]:
    return lambda logprobs: sum(value < math.log(probability) for value in logprobs)


def _minimum_of_quarter(quarter: int) -> Callable[[Sequence[float]], float]:
    """The lowest value in one quarter (1..4) of the segment; 0.0 if the quarter is empty."""

    def minimum(logprobs: Sequence[float]) -> float:
        start, end = (quarter - 1) * len(logprobs) // 4, quarter * len(logprobs) // 4
        return min(logprobs[start:end], default=0.0)

    return minimum


_OF_LOGPROBS: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": lambda logprobs: sum(logprobs) / len(logprobs),
    "sum": sum,
    "minimum": min,
    "second_lowest": _nth_lowest(2),
    "third_lowest": _nth_lowest(3),
    "length": lambda logprobs: math.log(len(logprobs)),
    "below_half": _count_below(0.5),
    "below_tenth": _count_below(0.1),
    "below_hundredth": _count_below(0.01),
    "first": lambda logprobs: logprobs[0],
    "last": lambda logprobs: logprobs[-1],
    # Relative position of the lowest value: 0.0 = the first token, towards 1.0 = the last.
    "place_of_minimum": lambda logprobs: logprobs.index(min(logprobs)) / len(logprobs),
    **{f"minimum_quarter_{quarter}": _minimum_of_quarter(quarter) for quarter in (1, 2, 3, 4)},
}


def _excess(signals: TokenSignals) -> list[float]:
    """Log-probability plus entropy of each token, nats: how much less surprising it is than the model expected.

    Below zero where the model was certain of another token, around zero where it had no preference.
    """
    return [a + b for a, b in zip(signals.logprobs, signals.entropies, strict=True)]


_OF_RANKS: dict[str, Callable[[TokenSignals], float]] = {
    "agreement": lambda signals: sum(rank == 1 for rank in signals.ranks) / len(signals.ranks),
    "top_2_share": lambda signals: sum(rank <= 2 for rank in signals.ranks) / len(signals.ranks),
    "worst_rank": lambda signals: math.log(max(signals.ranks)),
}
_OF_ENTROPIES: dict[str, Callable[[TokenSignals], float]] = {
    # The negated mean, so that higher is better as for the other signals.
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
"""All features by name; each takes the signals of at least one token."""

CHEAP_SIGNALS = ("mean", "minimum", "sum", "entropy", "agreement")
"""Features that every probe is compared with: a probe must do better than these, which cost nothing."""


def features_for(role: Author) -> tuple[str, ...]:
    """Returns the features that a role's probe can use.

    The draft's probe reads the pass that generated the segment, which has neither ranks nor entropies.
    """
    return tuple(FEATURES) if role == "target" else tuple(_OF_LOGPROBS)


def named_features(text: str, role: Author) -> tuple[str, ...]:
    """Parses a comma-separated list of features.

    Args:
        text: names, or `all` that the role can use, or `portable`: those that every engine provides (no entropies).
    """
    if text == "all":
        return features_for(role)
    if text == "portable":
        return tuple(name for name in features_for(role) if name not in _OF_ENTROPIES)
    return tuple(filter(None, text.split(",")))


def needs_entropies(names: Sequence[str]) -> bool:
    """Whether one of the features is computed from entropies, which not every engine provides."""
    return any(name in _OF_ENTROPIES for name in names)


def needs_signals(names: Sequence[str]) -> bool:
    """Whether one of the features is computed from ranks or entropies, which `Engine.score` computes on request."""
    return any(name not in _OF_LOGPROBS for name in names)


def check_features(names: Sequence[str], role: Author | None = None) -> None:
    """Checks feature names.

    Raises:
        ConfigError: a name is unknown, duplicated, or not available for the role.
    """
    for position, name in enumerate(names):
        if name not in FEATURES:
            raise ConfigError(f"unknown probe feature {name!r}; expected any of {', '.join(FEATURES)}")
        if name in names[:position]:
            raise ConfigError(f"probe feature {name!r} is given twice; list each feature once")
        if role is not None and name not in features_for(role):
            raise ConfigError(
                f"the {role}'s probe cannot use the feature {name!r}, which needs the pass of a model that did not "
                f"write the segment; expected any of {', '.join(features_for(role))}"
            )


def compute_features(names: Sequence[str], signals: TokenSignals) -> list[float]:
    """Computes the named features of one segment, in the order of the names.

    Raises:
        ConfigError: a feature needs ranks or entropies that the pass does not have.
    """
    for needed, recorded, of in (
        ("ranks", signals.ranks, _OF_RANKS),
        ("entropies", signals.entropies, _OF_ENTROPIES),
    ):
        if not recorded and (missing := [name for name in names if name in of]):
            raise ConfigError(
                f"the probe features {', '.join(missing)} need {needed}, which this pass of the model does not have; "
                "leave them out, or use an engine (and a collection) that records them"
            )
    clipped = tuple(max(value, LOWEST_LOGPROB) for value in signals.logprobs)
    bounded = TokenSignals(clipped, signals.ranks, signals.entropies)
    return [float(FEATURES[name](bounded)) for name in names]
