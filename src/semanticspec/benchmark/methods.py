"""What is compared: each method is a pair and a decoding configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from semanticspec.config import RULES, DecodingConfig, RuleConfig, preset, target_alone
from semanticspec.errors import ConfigError
from semanticspec.pair import Pair
from semanticspec.records import Result

METHODS = ("target", "draft", "semantic", "semantic-paper", "random", "top-k", "token", "always", "never")
LENGTH_STRATA = 4


@dataclass(frozen=True, slots=True)
class Method:
    """One line of a comparison."""

    name: str
    pair: Pair
    config: DecodingConfig


def make_method(name: str, pair: Pair, config: DecodingConfig) -> Method:
    """A method by name, all else as in `config`.

    Raises:
        ConfigError: there is no such method.
    """
    if name not in METHODS:
        raise ConfigError(f"there is no method {name!r}; choose from {', '.join(METHODS)}")
    if name == "target":
        return Method(name, pair, target_alone(config))
    if name == "draft":
        return Method(name, Pair(pair.draft, pair.draft), target_alone(config))
    if name == "semantic-paper":
        paper = replace(preset("paper"), max_new_tokens=config.max_new_tokens, sampling=config.sampling)
        return Method(name, pair, replace(paper, seed=config.seed))
    assert name in RULES
    return Method(name, pair, replace(config, rule=replace(config.rule, name=name)))  # type: ignore[arg-type]


def random_control(pilot: Sequence[Result], rule: RuleConfig) -> RuleConfig:
    """The control: accepts at random at the rate the method had on other problems, by segment length.

    Args:
        pilot: results of the method on problems that the comparison does not use.

    Raises:
        ConfigError: the pilot decided on no segment.
    """
    decided = sorted(
        (segment.num_tokens, bool(segment.accepted))
        for result in pilot
        for segment in result.segments
        if segment.accepted is not None
    )
    if not decided:
        raise ConfigError(
            "the pilot decided on no segment, so the random control has no rate; use more problems"
        )
    size = -(-len(decided) // LENGTH_STRATA)
    strata = [decided[i : i + size] for i in range(0, len(decided), size)]
    rates = tuple((stratum[-1][0], sum(kept for _, kept in stratum) / len(stratum)) for stratum in strata)
    return replace(rule, name="random", accept_rate_by_length=rates)
