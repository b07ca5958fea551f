"""The methods that a benchmark compares. A method answers a prompt; most run the decoding loop with some settings.

To add a method, add it to `METHODS`; methods of other projects go into `baselines/`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from semanticspec.benchmark.baselines.registry import BASELINES
from semanticspec.config import (
    DecodingConfig,
    RuleConfig,
    RuleName,
    optimization_names,
    preset,
    target_alone,
    with_optimizations,
)
from semanticspec.decoding.generate import generate_async
from semanticspec.decoding.pair import Pair
from semanticspec.errors import ConfigError
from semanticspec.records import Result

LENGTH_STRATA = 4


class Method(Protocol):
    """Answers prompts; one line of a comparison."""

    @property
    def name(self) -> str: ...

    @property
    def lossy(self) -> bool:
        """Whether the distribution of its output can differ from the target's."""
        ...

    async def solve(self, prompt: str, seed: int) -> Result:
        """Answers a prompt. The runner measures the time itself and ignores `Stats.wall_s`.

        Raises:
            SemanticSpecError: the request counts as failed.
        """
        ...


@dataclass(frozen=True, slots=True)
class LoopMethod:
    """Runs the decoding loop.

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
    """Runs the draft in the target's place, and accounts for its tokens and seconds as drafted ones."""

    @property
    def lossy(self) -> bool:
        return True

    async def solve(self, prompt: str, seed: int) -> Result:
        """See `Method.solve`."""
        pair = Pair(self.pair.draft, self.pair.draft)
        result = await generate_async(pair, prompt, replace(self.config, seed=seed))
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


@dataclass(frozen=True, slots=True)
class MethodKind:
    """What a method name stands for.

    Attributes:
        configure: changes the run's configuration into the method's.
        verifies: it verifies drafted segments in one target pass each, as the cost model in `costs` assumes.
        optimizable: optimizations can follow its name, as in `semantic+default`.
        sweepable: a strictness can follow its name, as in `semantic@0.5`.
        loop: the class that runs it.
    """

    configure: Callable[[DecodingConfig], DecodingConfig]
    verifies: bool = False
    optimizable: bool = False
    sweepable: bool = False
    loop: type[LoopMethod] = LoopMethod


def _rule(name: RuleName, *, optimizable: bool = True, sweepable: bool = False) -> MethodKind:
    def configure(config: DecodingConfig) -> DecodingConfig:
        return replace(config, rule=replace(config.rule, name=name))

    return MethodKind(configure, verifies=True, optimizable=optimizable, sweepable=sweepable)


def _paper(config: DecodingConfig) -> DecodingConfig:
    return replace(
        preset("paper"), max_new_tokens=config.max_new_tokens, sampling=config.sampling, seed=config.seed
    )


METHODS: dict[str, MethodKind] = {
    "target": MethodKind(target_alone),
    "draft": MethodKind(target_alone, loop=DraftAlone),
    "semantic": _rule("semantic", sweepable=True),
    "semantic-paper": MethodKind(_paper, verifies=True, optimizable=True),
    "top-k": _rule("top-k"),
    "random": _rule("random", sweepable=True),
    "always": _rule("always", optimizable=False),
    "never": _rule("never"),
    "token": _rule("token"),
}
"""The methods of this project, in the order in which a report prefers them for measuring costs."""


def known_methods() -> tuple[str, ...]:
    """Returns the names of all methods, baselines last."""
    return (*METHODS, *BASELINES)


def check_names(names: Sequence[str]) -> None:
    """Raises ConfigError for an unknown method, or one that is given twice, also if it is spelled differently."""
    spellings: dict[tuple[str, float | None, frozenset[str]], str] = {}
    for name in names:
        base, strictness = split_name(name)
        optimizations = _optimizations(name)
        kind = METHODS.get(base)
        if base not in known_methods() or (strictness is not None and not (kind and kind.sweepable)):
            raise ConfigError(
                f"there is no method {name!r}; choose from {', '.join(known_methods())}, or semantic@S for a "
                "strictness S"
            )
        if optimizations and not (kind and kind.optimizable):
            listed = ", ".join(other for other, kind in METHODS.items() if kind.optimizable)
            raise ConfigError(f"the method {name!r} takes no optimizations; these methods do: {listed}")
        identity = base, strictness, frozenset(optimizations)
        if identity in spellings:
            also = "" if spellings[identity] == name else f", also as {spellings[identity]!r}"
            raise ConfigError(f"the method {name!r} is given twice{also}; give it once")
        spellings[identity] = name


def split_name(name: str) -> tuple[str, float | None]:
    """Returns the method and the strictness in a name such as `semantic@0.5+overlap`.

    Raises:
        ConfigError: what follows the @ is not a number above 0.
    """
    base, mark, value = name.partition("+")[0].partition("@")
    if not mark:
        return base, None
    try:
        strictness = float(value)
        RuleConfig(strictness=strictness)
    except ValueError as error:
        raise ConfigError(f"the strictness in {name!r} is {value!r}; expected a number above 0") from error
    return base, strictness


def _optimizations(name: str) -> tuple[str, ...]:
    return optimization_names(name.split("+")[1:])


def with_strictness(config: DecodingConfig, strictness: float | None) -> DecodingConfig:
    """Returns the configuration at another strictness; None leaves it as it is."""
    if strictness is None:
        return config
    return replace(config, rule=replace(config.rule, strictness=strictness))


def make_method(name: str, pair: Pair, config: DecodingConfig) -> Method:
    """Creates a method by name, with all other settings from `config`.

    `random` accepts at the rates of `config.rule`; those of the control come from `random_control`.

    Raises:
        ConfigError: there is no such method.
        SemanticSpecError: the pair cannot run it, see `Pair.check`.
    """
    check_names([name])
    base, strictness = split_name(name)
    if base in BASELINES:
        return BASELINES[base](pair, config)
    kind = METHODS[base]
    config = kind.configure(with_strictness(config, strictness))
    # The name says which ones, not the configuration.
    config = with_optimizations(config, _optimizations(name))
    pair.check(config)
    return kind.loop(name, pair, config)


def random_control(pilot: Sequence[Result], rule: RuleConfig) -> RuleConfig:
    """Returns the rule of the random control, which accepts at the rates of the pilot by segment length.

    Args:
        pilot: results of the semantic rule on problems that are not compared.

    Raises:
        ConfigError: no segment was judged in the pilot.
    """
    judged = sorted(
        (segment.num_tokens, bool(segment.accepted))
        for result in pilot
        for segment in result.segments
        if segment.accepted is not None
    )
    if not judged:
        raise ConfigError("the pilot judged no segment, so the random control has no rate; use more problems")
    size = -(-len(judged) // LENGTH_STRATA)
    strata = [judged[i : i + size] for i in range(0, len(judged), size)]
    rates = tuple((stratum[-1][0], sum(kept for _, kept in stratum) / len(stratum)) for stratum in strata)
    return replace(rule, name="random", accept_rate_by_length=rates)
