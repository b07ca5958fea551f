"""What is compared. A method answers a prompt; most are a pair of models and a decoding configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from semanticspec.benchmark.baselines.registry import BASELINES
from semanticspec.config import (
    RULES,
    DecodingConfig,
    RuleConfig,
    optimization_names,
    preset,
    target_alone,
    with_optimizations,
)
from semanticspec.decoding.generate import generate_async
from semanticspec.decoding.pair import Pair
from semanticspec.errors import ConfigError
from semanticspec.records import Result

METHODS = ("target", "draft", "token", "semantic", "semantic-paper", "top-k", "random", "always", "never")
LENGTH_STRATA = 4
_SWEPT = ("semantic", "random")
_OPTIMIZABLE = ("token", "semantic", "semantic-paper", "top-k", "random", "never")


class Method(Protocol):
    """One line of a comparison."""

    @property
    def name(self) -> str: ...

    @property
    def lossy(self) -> bool:
        """Whether its output's distribution can differ from the target's."""
        ...

    async def solve(self, prompt: str, seed: int) -> Result:
        """Answers a prompt. `Stats.wall_s` is a help for reading; the runner measures the seconds itself.

        Raises:
            SemanticSpecError: it cannot; the request then counts as failed.
        """
        ...


@dataclass(frozen=True, slots=True)
class LoopMethod:
    """A method of the decoding loop.

    Attributes:
        config: its seed is replaced by that of the request.
    """

    name: str
    pair: Pair
    config: DecodingConfig

    @property
    def lossy(self) -> bool:
        return self.config.lossy

    async def solve(self, prompt: str, seed: int) -> Result:
        """See `Method.solve`."""
        return await generate_async(self.pair, prompt, replace(self.config, seed=seed))


@dataclass(frozen=True, slots=True)
class DraftAlone(LoopMethod):
    """The draft writes everything. The loop runs it as a target alone; here its work goes by its right name."""

    @property
    def lossy(self) -> bool:
        return True

    async def solve(self, prompt: str, seed: int) -> Result:
        """See `Method.solve`."""
        alone = Pair(self.pair.draft, self.pair.draft)
        result = await generate_async(alone, prompt, replace(self.config, seed=seed))
        stats = result.stats
        stats = replace(
            stats,
            draft_tokens=stats.num_tokens,
            drafted_tokens=stats.num_tokens,
            draft_s=stats.rewrite_s,
            rewrite_s=0.0,
        )
        segments = tuple(replace(segment, author="draft") for segment in result.segments)
        return replace(result, stats=stats, segments=segments, lossy=True)


def known_methods() -> tuple[str, ...]:
    """Names of all methods, those of other systems last."""
    return (*METHODS, *BASELINES)


def check_names(names: Sequence[str]) -> None:
    """Raises ConfigError for an unknown method, or one that is named twice."""
    known = known_methods()
    for name in names:
        base, strictness = split_name(name)
        optimizations = _optimizations(name)
        if base not in known or (strictness is not None and base not in _SWEPT):
            raise ConfigError(
                f"there is no method {name!r}; choose from {', '.join(known)}, or semantic@S for a strictness S"
            )
        if optimizations and base not in _OPTIMIZABLE:
            raise ConfigError(
                f"the method {name!r} takes no optimizations; they can follow {', '.join(_OPTIMIZABLE)}"
            )
        if names.count(name) > 1:
            raise ConfigError(f"the method {name!r} is named twice; name it once")


def split_name(name: str) -> tuple[str, float | None]:
    """The method and the strictness of a name such as `semantic@0.5+overlap`; no strictness for a plain name.

    Raises:
        ConfigError: what follows the @ is no number above 0.
    """
    base, mark, value = name.partition("+")[0].partition("@")
    if not mark:
        return base, None
    try:
        strictness = float(value)
        RuleConfig(strictness=strictness)
    except ValueError as error:
        raise ConfigError(f"{value!r} in {name!r} is no strictness; expected a number above 0") from error
    return base, strictness


def _optimizations(name: str) -> tuple[str, ...]:
    """The optimizations in a name such as `semantic+overlap`."""
    return optimization_names(name.split("+")[1:])


def with_strictness(config: DecodingConfig, strictness: float | None) -> DecodingConfig:
    """The configuration at another strictness; itself if there is none."""
    if strictness is None:
        return config
    return replace(config, rule=replace(config.rule, strictness=strictness))


def make_method(name: str, pair: Pair, config: DecodingConfig) -> Method:
    """A method by name, all else as in `config`.

    `random` accepts at `config.rule`'s rates; see `random_control` for those of the control.

    Raises:
        ConfigError: there is no such method.
        SemanticSpecError: the pair cannot run it, see `Pair.check`.
    """
    check_names([name])
    base, strictness = split_name(name)
    if base in BASELINES:
        return BASELINES[base](pair, config)
    if base == "draft":
        return DraftAlone(name, pair, target_alone(config))
    config = _configured(base, with_strictness(config, strictness))
    if optimizations := _optimizations(name):
        config = with_optimizations(config, optimizations)
    pair.check(config)
    return LoopMethod(name, pair, config)


def _configured(name: str, config: DecodingConfig) -> DecodingConfig:
    if name == "target":
        return target_alone(config)
    if name == "semantic-paper":
        paper = replace(preset("paper"), max_new_tokens=config.max_new_tokens, sampling=config.sampling)
        return replace(paper, seed=config.seed)
    assert name in RULES
    return replace(config, rule=replace(config.rule, name=name))  # type: ignore[arg-type]


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
