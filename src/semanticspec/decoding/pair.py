"""A target and a draft, ready to decode: engines, tokenizers, probes, and the checks that they fit together."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Protocol

from semanticspec.config import DEFAULT_OPTIMIZATIONS, DecodingConfig, resolve_optimizations
from semanticspec.decoding.adaptive import AdaptivePolicy, AlwaysSpeculate, SpeculationPolicy
from semanticspec.decoding.draft import Draft
from semanticspec.decoding.load import Load
from semanticspec.engines.base import Engine
from semanticspec.errors import ConfigError, EngineError, ProbeError
from semanticspec.records import Reading, Sampling, Stop
from semanticspec.text.chat import Prompt
from semanticspec.text.segments import Segmenter
from semanticspec.text.translation import Translation, describe_difference
from semanticspec.text.vocabulary import Vocabulary

# Clients of a server choose configurations; beyond this many the oldest policy is dropped.
_MAX_POLICIES = 64


class SemanticProbe(Protocol):
    """Estimates how likely a model was to say something with the meaning of a segment.

    A probe may have the attributes `sampling`: the settings under which its training labels were sampled,
    `needs_signals`: whether it reads ranks, entropies and margins of a score, `needs_draft`: whether it is a
    `SegmentProbe`, and `needs_same_tokens`: whether it compares both models token by token.
    """

    def estimate(self, reading: Reading) -> float:
        """Returns the semantic probability in (0, 1], from one pass of the probe's model over the segment."""
        ...


class SegmentProbe(Protocol):
    """A probe that reads more than its model's pass: the draft's own pass over the segment, or the segment's text."""

    def estimate(self, reading: Reading, draft: Draft) -> float:
        """Returns the semantic probability in (0, 1], from one pass of the probe's model and the drafted segment."""
        ...


@dataclass(frozen=True)
class Model:
    """An engine with its vocabulary."""

    engine: Engine
    vocabulary: Vocabulary

    @cached_property
    def segmenter(self) -> Segmenter:
        return Segmenter.of(self.vocabulary)


@dataclass(frozen=True)
class Pair:
    """A target and a draft, shared by all requests. Close it when done: `await pair.aclose()`.

    Attributes:
        target: the large model.
        draft: the small, fast model.
        target_probe, draft_probe: needed by the rule `semantic` only.
        fitting_probes: packaged probes that fit this pair by shape and tokenizer, and the models that they were made
            for; for error messages.
    """

    target: Model
    draft: Model
    target_probe: SemanticProbe | None = None
    draft_probe: SemanticProbe | None = None
    name: str = field(default="", compare=False)
    fitting_probes: Mapping[str, str] = field(default_factory=dict, compare=False)
    _load: Load = field(default_factory=Load, init=False, repr=False, compare=False)
    _policies: dict[DecodingConfig, AdaptivePolicy] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _policies_lock: threading.Lock = field(
        default_factory=threading.Lock, init=False, repr=False, compare=False
    )
    _warned: set[Sampling] = field(default_factory=set, init=False, repr=False, compare=False)

    @cached_property
    def to_target(self) -> Translation:
        """Translates the draft's tokens to the target's."""
        return Translation(self.draft.vocabulary, self.target.vocabulary)

    @cached_property
    def to_draft(self) -> Translation:
        """Translates the target's tokens to the draft's."""
        return Translation(self.target.vocabulary, self.draft.vocabulary)

    @property
    def same_vocabulary(self) -> bool:
        """Whether target and draft exchange token ids; otherwise text is re-encoded segment by segment."""
        return self.to_target.by_ids

    def render_draft_prompt(self, prompt: Prompt, target_ids: Sequence[int]) -> list[int]:
        """Returns a prompt in the draft's tokens, with the reasoning opened as in the target's prompt.

        Args:
            target_ids: the prompt in the target's tokens.
        """
        ids = self.draft.vocabulary.render_prompt(prompt)
        return self.draft.vocabulary.align_thinking(ids, self.target.vocabulary, target_ids)

    def draft_stop(self, stop: Stop) -> Stop:
        """Returns a stop of the draft that also stops at tokens that the target lacks, or that end its text."""
        return replace(stop, ids=stop.ids | self.to_target.unmapped | self.to_target.ends)

    def check(self, config: DecodingConfig, *, verifier_distributions: bool | None = None) -> None:
        """Checks that this pair can run a configuration. Warns if it samples otherwise than the probes' labels.

        Args:
            verifier_distributions: whether a verifier that decides in place of `config.rule` needs distributions;
                None if `config.rule` decides.

        Raises:
            ProbeError: the rule needs probes, and the pair has none.
            ConfigError: the rule needs one vocabulary, and the pair has two.
            EngineError: an engine lacks a capability that the rule or a tokenizer needs.
        """
        if not config.speculate:
            return
        own_rule = verifier_distributions is None
        if own_rule and config.rule.needs_probes and (self.target_probe is None or self.draft_probe is None):
            missing = "target" if self.target_probe is None else "draft"
            known = "".join(
                f"--target-probe {name} --draft-probe {name} come with the package and fit if these are {models}; "
                for name, models in self.fitting_probes.items()
            )
            raise ProbeError(
                f"the rule 'semantic' needs a probe of the {missing}; {known}give --{missing}-probe (make one with "
                "`semanticspec probe`), or choose a rule without probes such as --rule top-k"
            )
        if own_rule and config.rule.needs_probes:
            if getattr(self.target_probe, "needs_same_tokens", False) and not self.same_vocabulary:
                raise ProbeError(
                    "the target probe compares both models token by token, and these models differ in their tokens "
                    f"({describe_difference(self.target.vocabulary, self.draft.vocabulary)}); train a probe without "
                    "the feature difference_minimum"
                )
            self._compare_sampling(config.sampling)
        why = config.why_distributions
        if own_rule:
            needs_distributions = config.needs_distributions
        else:
            needs_distributions = config.needs_token_level or bool(verifier_distributions)
            why = why if config.needs_token_level else "the verifier"
        if needs_distributions and not self.same_vocabulary:
            raise ConfigError(
                f"{why} needs a target and a draft with the same tokens, and these differ "
                f"({describe_difference(self.target.vocabulary, self.draft.vocabulary)}); use --rule top-k or semantic "
                "without it, or another draft"
            )
        for role, model in (("target", self.target), ("draft", self.draft)):
            can = model.engine.info.capabilities
            if needs_distributions and not can.distributions:
                raise EngineError(
                    f"{why} needs full distributions, which the {role}'s engine does not return"
                )
            if model.segmenter.needs_pair_stops and not can.pair_stops:
                raise EngineError(
                    f"the {role}'s tokenizer writes a blank line as two tokens, and its engine stops at single "
                    "tokens only; use the transformers engine for it"
                )

    def _compare_sampling(self, sampling: Sampling) -> None:
        """Warns, once for each sampling, if it is not that of the probes' labels."""
        for probe in (self.target_probe, self.draft_probe):
            labelled = getattr(probe, "sampling", sampling)
            if labelled != sampling and sampling not in self._warned:
                self._warned.add(sampling)
                warnings.warn(
                    f"the request samples at temperature {sampling.temperature:g}, top-p {sampling.top_p:g}, but the "
                    f"probes estimate probabilities at temperature {labelled.temperature:g}, top-p {labelled.top_p:g}: "
                    "acceptance may be off; use their settings, or train probes for yours",
                    stacklevel=3,
                )

    def resolve(self, config: DecodingConfig) -> DecodingConfig:
        """Returns the configuration with the optimizations that it leaves open turned on or off for this pair.

        The default optimizations need one vocabulary and engines that return distributions. Token-level speculation,
        which makes many short calls, also needs engines with a prefix cache. This is the only place where a default
        depends on the pair; `decode` calls it.
        """
        engines = [model.engine.info.capabilities for model in (self.target, self.draft)]
        if not (self.same_vocabulary and all(can.distributions for can in engines)):
            return resolve_optimizations(config, ())
        supported = [
            name
            for name in DEFAULT_OPTIMIZATIONS
            if name != "token-speculation" or all(can.prefix_cache for can in engines)
        ]
        return resolve_optimizations(config, supported)

    def speculation_policy(self, config: DecodingConfig) -> SpeculationPolicy:
        """Returns what decides when to speculate; adaptive ones are shared by the requests of a configuration."""
        if not config.adaptive:
            return AlwaysSpeculate()
        key = replace(
            config, seed=0, max_new_tokens=1, stop=()
        )  # none of them changes what speculation costs
        with self._policies_lock:
            if key not in self._policies and len(self._policies) == _MAX_POLICIES:
                del self._policies[next(iter(self._policies))]
            return self._policies.setdefault(key, AdaptivePolicy(self._load))

    async def aclose(self) -> None:
        """Frees both models."""
        await self.target.engine.aclose()
        await self.draft.engine.aclose()
