"""Features of a segment that a probe can read beside the pooled state.

They need no extra forward pass: every `Reading` has log-probabilities, and a `Score` has ranks, entropies and margins
too. The target's probe can also read the log-probabilities of the draft, which wrote the segment.
The meaning and the wording of a segment surprise a model at different positions: the first tokens mostly settle the
wording, while a wrong number is a single late, deep dip. So there are features of single positions, not only of the
whole segment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from semanticspec.decoding.draft import Draft
from semanticspec.errors import ConfigError
from semanticspec.probes.text_features import TEXT_FEATURES
from semanticspec.records import Author, Reading, Score, SegmentText

LOWEST_LOGPROB = -20.0
"""Lower bound of log-probabilities (nats), so that a token with probability 0 stays finite."""


@dataclass(frozen=True, slots=True)
class TokenSignals:
    """What is known of a segment beside the state: what one pass says about each token, and more where it is needed.

    Attributes:
        logprobs: raw log-probabilities, nats; at least one.
        ranks: 1 = the model's most probable token. Empty if the model generated the segment itself.
        entropies: of the raw distributions, nats. Empty as for ranks, or if the engine does not give them.
        margins: between the two most probable tokens, nats. Empty as for entropies.
        draft_logprobs: of the draft, which generated the segment, in the draft's tokens. Empty if the target wrote it.
        text: the segment's text and what comes before it; None if it is not known.
    """

    logprobs: tuple[float, ...]
    ranks: tuple[int, ...] = ()
    entropies: tuple[float, ...] = ()
    margins: tuple[float, ...] = ()
    draft_logprobs: tuple[float, ...] = ()
    text: SegmentText | None = None


def signals_of(reading: Reading, draft: Draft | None = None) -> TokenSignals:
    """Returns the signals of a pass; a generation has neither ranks nor entropies nor margins.

    Args:
        draft: the segment that was read, where a probe needs more than the pass.
    """
    draft_logprobs, text = (
        (draft.generation.logprobs, draft.segment_text) if draft is not None else ((), None)
    )
    if not isinstance(reading, Score):
        return TokenSignals(reading.logprobs, draft_logprobs=draft_logprobs, text=text)
    return TokenSignals(
        reading.logprobs, reading.ranks, reading.entropies, reading.margins, draft_logprobs, text
    )


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
    # Where the segment begins, the model decides what to say next.
    "first_entropy": lambda signals: signals.entropies[0],
}
_OF_MARGINS: dict[str, Callable[[TokenSignals], float]] = {
    "mean_margin": lambda signals: sum(signals.margins) / len(signals.margins),
    "smallest_margin": lambda signals: min(signals.margins),
    "first_margin": lambda signals: signals.margins[0],
}


def _differences(signals: TokenSignals) -> list[float]:
    """Log-probability of the target minus that of the draft, token by token, nats.

    A token at the end that only one of the models has is left out.

    Raises:
        ConfigError: the two models split the segment into different tokens.
    """
    if abs(len(signals.logprobs) - len(signals.draft_logprobs)) > 1:
        raise ConfigError(
            f"the probe feature difference_minimum compares both models token by token, and a segment has "
            f"{len(signals.logprobs)} tokens of the target and {len(signals.draft_logprobs)} of the draft; leave it out"
        )
    return [a - b for a, b in zip(signals.logprobs, signals.draft_logprobs, strict=False)]


def _difference_sum(signals: TokenSignals) -> float:
    """Logarithm of the ratio of both models' probabilities of the segment, nats."""
    return sum(signals.logprobs) - sum(signals.draft_logprobs)


_OF_DRAFT: dict[str, Callable[[TokenSignals], float]] = {
    "draft_mean": lambda signals: sum(signals.draft_logprobs) / len(signals.draft_logprobs),
    "draft_sum": lambda signals: sum(signals.draft_logprobs),
    "draft_minimum": lambda signals: min(signals.draft_logprobs),
    "difference_sum": _difference_sum,
    "difference_mean": lambda signals: _difference_sum(signals) / len(signals.logprobs),
    "difference_minimum": lambda signals: min(_differences(signals)),
}


def _on_logprobs(function: Callable[[Sequence[float]], float]) -> Callable[[TokenSignals], float]:
    return lambda signals: function(signals.logprobs)


def _on_text(function: Callable[[SegmentText], float]) -> Callable[[TokenSignals], float]:
    def value(signals: TokenSignals) -> float:
        assert signals.text is not None
        return function(signals.text)

    return value


FEATURES: Mapping[str, Callable[[TokenSignals], float]] = MappingProxyType(
    {name: _on_logprobs(function) for name, function in _OF_LOGPROBS.items()}
    | _OF_RANKS
    | _OF_ENTROPIES
    | _OF_MARGINS
    | {name: _on_text(function) for name, function in TEXT_FEATURES.items()}
    | _OF_DRAFT
)
"""All features by name; each takes the signals of at least one token."""

CHEAP_SIGNALS = ("mean", "minimum", "sum", "entropy", "agreement")
"""Features that every probe is compared with: a probe must do better than these, which cost nothing."""

_NEEDS: tuple[tuple[str, Callable[[TokenSignals], object], Collection[str]], ...] = (
    ("ranks", lambda signals: signals.ranks, _OF_RANKS),
    ("entropies", lambda signals: signals.entropies, _OF_ENTROPIES),
    ("margins", lambda signals: signals.margins, _OF_MARGINS),
    ("the segment's text", lambda signals: signals.text, TEXT_FEATURES),
    ("the draft's log-probabilities", lambda signals: signals.draft_logprobs, _OF_DRAFT),
)
"""What features need beside log-probabilities: its name, whether signals have it, the features."""


def features_for(role: Author, *, joint: bool = False) -> tuple[str, ...]:
    """Returns the features that a role's probe reads by default.

    The draft's probe reads the pass that generated the segment, which has neither ranks nor entropies nor margins.

    Args:
        joint: of a target's probe: also those of the draft's pass.
    """
    if role == "draft":
        return (*_OF_LOGPROBS, *TEXT_FEATURES)
    return tuple(name for name in FEATURES if joint or name not in _OF_DRAFT)


def named_features(text: str, role: Author, *, joint: bool = False) -> tuple[str, ...]:
    """Parses a comma-separated list of features.

    Args:
        text: names, or `all` that the role reads by default, or `portable`: those that are computed from
            log-probabilities and ranks, which every engine provides.
        joint: see `features_for`.
    """
    if text == "all":
        return features_for(role, joint=joint)
    if text == "portable":
        other = {*_OF_ENTROPIES, *_OF_MARGINS, *TEXT_FEATURES}
        return tuple(name for name in features_for(role, joint=joint) if name not in other)
    return tuple(filter(None, text.split(",")))


def available_features(names: Sequence[str], rows: Sequence[TokenSignals]) -> tuple[str, ...]:
    """Returns those features that can be computed for every row."""
    missing = {name for _, has, of in _NEEDS if not all(map(has, rows)) for name in of}
    return tuple(name for name in names if name not in missing)


def unserved(names: Sequence[str], *, entropies: bool, margins: bool) -> list[str]:
    """Returns what the features need and an engine does not give: `entropies`, `margins`, both or nothing."""
    needed = (("entropies", entropies, _OF_ENTROPIES), ("margins", margins, _OF_MARGINS))
    return [name for name, given, of in needed if not given and any(feature in of for feature in names)]


def needs_signals(names: Sequence[str]) -> bool:
    """Whether one of the features needs what `Engine.score` computes on request."""
    return any(name in of for name in names for of in (_OF_RANKS, _OF_ENTROPIES, _OF_MARGINS))


def needs_text(names: Sequence[str]) -> bool:
    """Whether one of the features is computed from the segment's text."""
    return any(name in TEXT_FEATURES for name in names)


def needs_draft_pass(names: Sequence[str]) -> bool:
    """Whether one of the features is computed from the draft's log-probabilities."""
    return any(name in _OF_DRAFT for name in names)


def needs_same_tokens(names: Sequence[str]) -> bool:
    """Whether one of the features compares target and draft token by token."""
    return "difference_minimum" in names


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
        if role == "draft" and name not in features_for(role):
            raise ConfigError(
                f"the {role}'s probe cannot use the feature {name!r}, which needs the pass of a model that did not "
                f"write the segment; expected any of {', '.join(features_for(role))}"
            )


def compute_features(names: Sequence[str], signals: TokenSignals) -> list[float]:
    """Computes the named features of one segment, in the order of the names.

    Raises:
        ConfigError: a feature needs what the pass does not have, such as ranks or margins.
    """
    for needed, has, of in _NEEDS:
        if not has(signals) and (missing := [name for name in names if name in of]):
            raise ConfigError(
                f"the probe features {', '.join(missing)} need {needed}, which this pass of the model does not have; "
                "collect again into a new folder if the collection is of an earlier version, use an engine that gives "
                "them, or leave these features out"
            )
    bounded = replace(
        signals,
        logprobs=_bounded(signals.logprobs),
        draft_logprobs=_bounded(signals.draft_logprobs),
        margins=tuple(min(value, -LOWEST_LOGPROB) for value in signals.margins),
    )
    return [float(FEATURES[name](bounded)) for name in names]


def _bounded(logprobs: Sequence[float]) -> tuple[float, ...]:
    return tuple(max(value, LOWEST_LOGPROB) for value in logprobs)
