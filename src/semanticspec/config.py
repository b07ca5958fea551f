"""Every setting of decoding: type, range, unit, default and the source of the default.

Configurations are frozen and validated when they are created; derive others with `dataclasses.replace`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, Literal, TypedDict, Unpack, get_args

from semanticspec.errors import ConfigError
from semanticspec.records import Sampling

RuleName = Literal["semantic", "top-k", "token", "random", "always", "never"]
PresetName = Literal["default", "paper"]
RULES: tuple[str, ...] = get_args(RuleName)
PRESETS: tuple[str, ...] = get_args(PresetName)
LOSSLESS_RULES = frozenset({"token", "never"})
CONTROL_RULES = frozenset({"random", "always", "never"})
"""Rules to compare others with. Optimizations are off for them unless asked for: with token-level speculation the draft
writes a part of what `never` outputs, and the target checks a part of what `always` does."""


@dataclass(frozen=True, slots=True)
class RuleConfig:
    """Decides which drafted segments are kept.

    Attributes:
        name: `semantic` (lossy), `top-k` (lossy), `token` (lossless), `random` (lossy, a control),
            `always` (lossy, a control: every draft is kept; the target writes the answer), `never` (lossless, a
            control: every draft is rejected, so the target writes everything).
        strictness: for `semantic`, > 0: a segment is accepted with probability
            min(1, p_target / (strictness * p_draft)). 1 is the paper's rule; a larger value keeps fewer segments.
            Default and floor were chosen together:
            docs/decisions/0001-default-preset.md.
        ratio_floor: for `semantic`, in [0, 1]: segments with a lower ratio are always rejected; 0 = no floor.
            Source: some versions of the authors' scripts use 0.5 to 0.8.
        target_floor: for `semantic`, in [0, 1]: segments with a lower p_target are always rejected; 0 = no floor.
            Not in the paper: estimates are clamped to 1/(2n), so a meaning that both models find rarer than that
            has ratio 1 and would always pass.
        shortcut_top_k: for `semantic`: accept without asking the probes if every token is among the target's
            k most probable tokens; 0 = off. Source: 2 in the authors' latest script.
        top_k: for `top-k`, >= 1: keep a segment if every token is among the target's k most probable tokens.
        accept_rate: for `random`, in [0, 1]. `accept_rate_by_length` overrides it: pairs of (longest length in
            target tokens, rate), in ascending order.
    """

    name: RuleName = "semantic"
    strictness: float = 0.5
    ratio_floor: float = 0.0
    target_floor: float = 0.2
    shortcut_top_k: int = 0
    top_k: int = 2
    accept_rate: float = 0.5
    accept_rate_by_length: tuple[tuple[int, float], ...] = ()

    def __post_init__(self) -> None:
        _check_types(self)
        _require(self.name in RULES, "rule", self.name, f"one of {', '.join(RULES)}")
        _require(0 < self.strictness < float("inf"), "strictness", self.strictness, "a number above 0")
        _require(0 <= self.ratio_floor <= 1, "ratio_floor", self.ratio_floor, "a number from 0 to 1")
        _require(0 <= self.target_floor <= 1, "target_floor", self.target_floor, "a number from 0 to 1")
        _require(self.shortcut_top_k >= 0, "shortcut_top_k", self.shortcut_top_k, "0 (off) or more")
        _require(self.top_k >= 1, "top_k", self.top_k, "1 or more")
        for rate in (self.accept_rate, *(rate for _, rate in self.accept_rate_by_length)):
            _require(0 <= rate <= 1, "accept_rate", rate, "a number from 0 to 1")

    @property
    def lossy(self) -> bool:
        """Whether the rule can change the distribution of the target's output."""
        return self.name not in LOSSLESS_RULES

    @property
    def needs_probes(self) -> bool:
        return self.name == "semantic"

    @property
    def needs_distributions(self) -> bool:
        return self.name == "token"


@dataclass(frozen=True, slots=True)
class DecodingConfig:
    """How one request is decoded.

    Optimizations that are left open (None) are on where the pair supports them and the rule is no control; see
    `Pair.resolve` and docs/decisions/0003-default-optimizations.md.

    Attributes:
        rule: which drafted segments are kept.
        sampling: of both models.
        max_new_tokens: longest output in target tokens, >= 1. Source: 14000 in the authors' script.
        max_segment_tokens: longest segment in tokens, of either model, >= 1. Source: 500 in the paper.
        max_answer_tokens: most tokens that the target writes to the end once the answer is left to it (see
            `speculate_answer`); None = no separate limit. Source: 2000 in the
            authors' script, used by the preset `paper`.
        first_segment: who writes the first segment. Source: the target in the paper.
        bonus_token: after an accepted segment, append a token that the target samples at `bonus_temperature`.
            Source: the authors' latest script. It shifts where segments begin.
        judge_think_end: verify a drafted segment that contains `</think>` like any other; False drops it and
            lets the target write everything that is left, as in the authors' script.
        speculate_answer: draft the answer after `</think>` too; False leaves it to the target.
        partial_acceptance: of a rejected segment, keep the prefix that token-level speculation accepts; the target
            continues from there instead of from the start of the segment. None = where the pair supports it.
        num_speculative_tokens: where the target writes, the draft proposes up to this many tokens at a time, which
            the target verifies in one pass (lossless); 0 = off, None = 12 where the pair supports it. With the rule
            `token` the whole text is written this way. The name is vLLM's.
        min_proposal_likelihood: the draft ends a proposal after the token with which the product of its tokens'
            probabilities falls below this; 0 = off. With `adaptive`, measured costs decide. Whether a token is proposed
            does not depend on that token, so this is lossless.
        overlap: the draft writes the next segment while the target verifies one; it is dropped if that one is
            rejected. The output stays the same. Pays with a device for each model.
        adaptive: measure, across the requests of a pair, what speculation costs and saves, and let the target write
            where it does not pay. What is drafted then depends on measured times, so a seed alone does not fix
            the output.
        speculate: False runs the target alone, without segments.
        max_repeated_tokens: speculation ends once so many tokens at the end of the output, half of them or more by the
            draft, repeat an n-gram over and over: a draft in a loop is easy to accept. 0 = off.
        stop: the output ends before the first of these strings; in Python also a single string.
        seed: repeats an output, together with models and configuration, in float32 (see also `adaptive`). In bfloat16
            and float16, and with llama.cpp or vLLM, repeats can differ: rounding depends on which tokens are computed
            together, and so on what is cached.
    """

    rule: RuleConfig = field(default_factory=RuleConfig)
    sampling: Sampling = field(default_factory=Sampling)
    max_new_tokens: int = 14_000
    max_segment_tokens: int = 500
    max_answer_tokens: int | None = None
    first_segment: Literal["draft", "target"] = "draft"
    bonus_token: bool = False
    bonus_temperature: float = 0.1
    judge_think_end: bool = True
    speculate_answer: bool = False
    partial_acceptance: bool | None = None
    num_speculative_tokens: int | None = None
    min_proposal_likelihood: float = 0.4
    overlap: bool = False
    adaptive: bool = False
    speculate: bool = True
    max_repeated_tokens: int = 128
    stop: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        _check_config_parts(self.rule, self.sampling)
        _check_types(self)
        _require(
            isinstance(self.stop, str | list | tuple), "stop", self.stop, "a string or a list of strings"
        )
        object.__setattr__(self, "stop", (self.stop,) if isinstance(self.stop, str) else tuple(self.stop))
        for stop in self.stop:
            _require(isinstance(stop, str) and stop != "", "stop", stop, "strings that are not empty")
        _require(
            self.max_repeated_tokens >= 0, "max_repeated_tokens", self.max_repeated_tokens, "0 (off) or more"
        )
        check_sampling(self.sampling)
        _require(self.max_new_tokens >= 1, "max_new_tokens", self.max_new_tokens, "1 or more")
        _require(self.max_segment_tokens >= 1, "max_segment_tokens", self.max_segment_tokens, "1 or more")
        if self.max_answer_tokens is not None:
            _require(self.max_answer_tokens >= 1, "max_answer_tokens", self.max_answer_tokens, "1 or more")
        _require(
            self.first_segment in ("draft", "target"), "first_segment", self.first_segment, "draft or target"
        )
        _require(0 <= self.bonus_temperature <= 10, "bonus_temperature", self.bonus_temperature, "0 to 10")
        if self.num_speculative_tokens is not None:
            _require(
                self.num_speculative_tokens >= 0,
                "num_speculative_tokens",
                self.num_speculative_tokens,
                "0 or more",
            )
        likelihood = self.min_proposal_likelihood
        _require(0 <= likelihood <= 1, "min_proposal_likelihood", likelihood, "0 (off) to 1")
        _require(self.seed >= 0, "seed", self.seed, "0 or more")
        if self.bonus_token and self.rule.needs_distributions:
            raise ConfigError(
                f"the rule '{self.rule.name}' is lossless, but a bonus token is not; use the preset 'default' with it"
            )

    @property
    def lossy(self) -> bool:
        """Whether the output's distribution can differ from the target's."""
        return self.speculate and (self.rule.lossy or self.bonus_token)

    @property
    def accepts_partially(self) -> bool:
        """Whether prefixes of rejected segments are kept beyond what the rule itself keeps."""
        return bool(self.partial_acceptance) and not self.rule.needs_distributions

    @property
    def drafts_proposals(self) -> bool:
        """Whether the draft writes short proposals, sized by recent acceptance, instead of segments."""
        return self.rule.needs_distributions and bool(self.num_speculative_tokens)

    @property
    def adds_token(self) -> bool:
        """Whether a token of the target follows an accepted draft."""
        return self.bonus_token or self.drafts_proposals

    @property
    def needs_distributions(self) -> bool:
        """Whether both engines must return full distributions."""
        return self.rule.needs_distributions or self.needs_token_level

    @property
    def needs_token_level(self) -> bool:
        """Whether partial acceptance or token-level speculation is on."""
        return bool(self.partial_acceptance) or bool(self.num_speculative_tokens)

    @property
    def optimizations(self) -> tuple[str, ...]:
        """Names of the optimizations that are on, see `OPTIMIZATIONS`; those left open are not among them."""
        on = {
            "partial-acceptance": self.partial_acceptance,
            "token-speculation": self.num_speculative_tokens,
            "overlap": self.overlap,
            "adaptive": self.adaptive,
        }
        return tuple(name for name, value in on.items() if value and self.speculate)

    @property
    def why_distributions(self) -> str:
        """The setting that needs distributions, for error messages."""
        if self.rule.needs_distributions:
            return f"the rule '{self.rule.name}'"
        return "token-level speculation (partial_acceptance, num_speculative_tokens)"


def preset(name: str) -> DecodingConfig:
    """Returns the configuration of a preset.

    `default` is ours, see docs/decisions/. `paper` is the method as its authors' latest script runs it.

    Raises:
        ConfigError: there is no such preset.
    """
    _require(name in PRESETS, "preset", name, f"one of {', '.join(PRESETS)}")
    if name == "default":
        return DecodingConfig()
    return DecodingConfig(
        partial_acceptance=False,
        num_speculative_tokens=0,
        rule=RuleConfig(strictness=1.0, target_floor=0.0, shortcut_top_k=2),
        max_answer_tokens=2000,
        first_segment="target",
        bonus_token=True,
        judge_think_end=False,
    )


OPTIMIZATIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "partial-acceptance": {"partial_acceptance": True},
        "token-speculation": {"num_speculative_tokens": 12},
        "overlap": {"overlap": True},
        "adaptive": {"adaptive": True},
    }
)
"""Optimizations beyond the paper, by name, with the settings that turn each one on."""
DEFAULT_OPTIMIZATIONS = ("partial-acceptance", "token-speculation")
"""On unless configured otherwise, where the pair supports them: docs/decisions/0003-default-optimizations.md."""
AUTO_OPTIMIZATIONS = "auto"
OPTIMIZATIONS_HELP = (
    f"Comma-separated: {', '.join(OPTIMIZATIONS)}; none; or auto ({' and '.join(DEFAULT_OPTIMIZATIONS)} where the "
    f"pair supports them; none for the preset paper and the rules {', '.join(sorted(CONTROL_RULES))})."
)
_OPEN = ("partial_acceptance", "num_speculative_tokens")
"""Settings that may be left open (None) until the pair is known."""
_RULE_OPTIONS = {"rule": "name", "strictness": "strictness"}
_OLD_NAMES = {"prefix": "partial-acceptance", "tokens": "token-speculation"}


def optimization_names(names: Iterable[str]) -> tuple[str, ...]:
    """Checks names of optimizations; `default` stands for the default ones, old names are replaced with a warning.

    Raises:
        ConfigError: a name is unknown.
    """
    known: list[str] = []
    for name in names:
        if name in _OLD_NAMES:
            new = _OLD_NAMES[name]
            warnings.warn(
                f"the optimization {name!r} is now called {new!r}; the old name will be removed in 0.2",
                FutureWarning,
                stacklevel=3,
            )
            name = new
        if name != "default":
            _require(
                name in OPTIMIZATIONS, "optimization", name, f"any of {', '.join(OPTIMIZATIONS)}, default"
            )
        known += DEFAULT_OPTIMIZATIONS if name == "default" else [name]
    return tuple(known)


def with_optimizations(config: DecodingConfig, names: Iterable[str]) -> DecodingConfig:
    """Returns the same configuration with exactly these optimizations.

    Raises:
        ConfigError: a name is unknown.
    """
    off = replace(config, partial_acceptance=False, num_speculative_tokens=0, overlap=False, adaptive=False)
    settings = [OPTIMIZATIONS[name] for name in optimization_names(names)]
    return replace(off, **{key: value for each in settings for key, value in each.items()})


def resolve_optimizations(config: DecodingConfig, supported: Iterable[str]) -> DecodingConfig:
    """Returns the configuration with every optimization either on or off; what is set already stays as it is.

    Args:
        supported: the default optimizations that the pair supports.
    """
    on = config.speculate and config.rule.name not in CONTROL_RULES
    default = with_optimizations(config, supported if on else ())
    left_open = [f.name for f in fields(config) if f.name in _OPEN and getattr(config, f.name) is None]
    return replace(config, **{name: getattr(default, name) for name in left_open})


class Overrides(TypedDict, total=False):
    """Settings that can be changed for one call; None keeps a setting.

    `rule` is a name. `optimizations` are comma-separated names from `OPTIMIZATIONS`, `none`, or `auto` for the default
    ones where the pair supports them.
    """

    rule: str | None
    strictness: float | None
    max_new_tokens: int | None
    temperature: float | None
    top_p: float | None
    seed: int | None
    optimizations: str | None
    stop: str | Sequence[str] | None
    max_repeated_tokens: int | None


def with_options(config: DecodingConfig, **overrides: Unpack[Overrides]) -> DecodingConfig:
    """Returns a configuration with the given settings replaced.

    Raises:
        ConfigError: a setting is out of range or unknown.
    """
    given: dict[str, Any] = {name: value for name, value in overrides.items() if value is not None}
    unknown = given.keys() - Overrides.__annotations__.keys()
    if unknown:
        raise ConfigError(
            f"there is no option {min(unknown)!r}; expected any of {', '.join(Overrides.__annotations__)}; for other "
            "settings, pass a DecodingConfig"
        )
    if "optimizations" in given:
        config = _with_listed_optimizations(config, given.pop("optimizations"))
    rule = {field: given.pop(name) for name, field in _RULE_OPTIONS.items() if name in given}
    sampling = {name: given.pop(name) for name in ("temperature", "top_p") if name in given}
    return replace(
        config, rule=replace(config.rule, **rule), sampling=replace(config.sampling, **sampling), **given
    )


def _with_listed_optimizations(config: DecodingConfig, listed: object) -> DecodingConfig:
    _require(
        isinstance(listed, str), "optimizations", listed, "a string such as 'overlap,adaptive' or 'none'"
    )
    if listed == AUTO_OPTIMIZATIONS:
        return replace(with_optimizations(config, ()), partial_acceptance=None, num_speculative_tokens=None)
    names = [] if listed == "none" else [name for name in str(listed).split(",") if name]
    return with_optimizations(config, names)


def target_alone(config: DecodingConfig) -> DecodingConfig:
    """Returns the same configuration without speculation: the baseline of every comparison."""
    return replace(config, speculate=False)


def check_sampling(sampling: Sampling) -> None:
    """Raises ConfigError for sampling settings of a wrong type or out of range."""
    _check_types(sampling)
    _require(0 <= sampling.temperature <= 10, "temperature", sampling.temperature, "0 (greedy) to 10")
    _require(0 < sampling.top_p <= 1, "top_p", sampling.top_p, "above 0, at most 1")


def _check_config_parts(rule: object, sampling: object) -> None:
    """Raises ConfigError if a part of a configuration is not the record that it must be."""
    if not isinstance(rule, RuleConfig):
        fix = (
            f"RuleConfig({rule!r})"
            if rule in RULES
            else f"RuleConfig(name), with a name of {', '.join(RULES)}"
        )
        raise ConfigError(f"rule is {rule!r}; expected a RuleConfig, for example rule={fix}")
    if not isinstance(sampling, Sampling):
        raise ConfigError(
            f"sampling is {sampling!r}; expected a Sampling, for example Sampling(temperature=0.6, top_p=0.95)"
        )


_EXPECTED_TYPES: Mapping[str, tuple[type, str]] = {
    "bool": (bool, "True or False"),
    "int": (Integral, "a whole number"),
    "float": (Real, "a number"),
}


def _check_types(record: Any) -> None:
    """Raises ConfigError for a field of a record that holds another type than it is declared with.

    Fields that are neither booleans nor numbers are checked by their values.
    """
    for field_ in fields(record):
        declared, _, optional = str(field_.type).partition(" | ")
        value = getattr(record, field_.name)
        if declared not in _EXPECTED_TYPES or (optional and value is None):
            continue
        kind, expected = _EXPECTED_TYPES[declared]
        fits = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        _require(fits, field_.name, value, expected + (f" or {optional}" if optional else ""))


def _require(holds: bool, name: str, got: object, expected: str) -> None:
    if not holds:
        raise ConfigError(f"{name} is {got!r}; expected {expected}")
