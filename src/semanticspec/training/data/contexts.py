"""Finds the contexts of a problem: prefixes of reasoning traces, at which both models are sampled.

A trace is written by the speculative loop or by the target alone, or it is given with the problem.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from random import Random

from semanticspec.config import DecodingConfig, RuleConfig, target_alone
from semanticspec.decoding.generate import decode
from semanticspec.decoding.pair import Model, Pair
from semanticspec.engines.base import derived_seed, position_uniform
from semanticspec.errors import ConfigError
from semanticspec.problems.sources import ProblemText
from semanticspec.records import TextWritten, ThinkingEnded
from semanticspec.text.chat import THINK_START
from semanticspec.training.data.settings import CollectConfig
from semanticspec.training.data.storage import Origin


@dataclass(frozen=True, slots=True)
class Context:
    """The output so far as segments of target tokens, and who wrote it."""

    origin: Origin
    segments: tuple[tuple[int, ...], ...]


class ContextFinder:
    """Writes the traces of one problem that are needed, and draws contexts from them."""

    def __init__(self, pair: Pair, config: CollectConfig, problem: ProblemText, seed: int) -> None:
        self.pair, self.config, self.problem, self.seed = pair, config, problem, seed

    async def find(self) -> list[Context]:
        """Returns the contexts; a prefix of both traces counts as written by the loop."""
        with_loop, with_other = self._traces_needed()
        loop = self._loop_config()
        by_loop, by_other = await asyncio.gather(
            self._trace(loop) if with_loop else _no_trace(),
            self._other_trace(loop) if with_other else _no_trace(),
        )
        other: Origin = "given" if self.problem.trace else "target"
        origins: dict[tuple[tuple[int, ...], ...], Origin] = dict.fromkeys(_prefixes(by_loop), "loop")
        for prefix in _prefixes(by_other):
            origins.setdefault(prefix, other)
        return self._choose([Context(origin, prefix) for prefix, origin in origins.items()])

    def _traces_needed(self) -> tuple[bool, bool]:
        """Returns whether a trace by the loop is needed, and whether the other one is."""
        share, limit = self.config.loop_share, self.config.max_contexts
        if self.config.one_trace:
            by_loop = position_uniform(self.seed, 0) < share
            return by_loop, not by_loop
        return share > 0, limit is None or int(limit * (1 - share)) > 0

    def _choose(self, contexts: list[Context]) -> list[Context]:
        """Draws at most `max_contexts` contexts, of which at least `loop_share` are written by the loop."""
        random = Random(derived_seed(self.seed, "contexts"))
        share, limit = self.config.loop_share, self.config.max_contexts
        by_loop = [context for context in contexts if context.origin == "loop"]
        others = [context for context in contexts if context.origin != "loop"]
        if self.config.one_trace:
            return _sample(contexts, len(contexts) if limit is None else limit, random)
        if limit is not None:
            num_others = min(len(others), int(limit * (1 - share)))
            by_loop = _sample(by_loop, limit - num_others, random)
        if share > 0:
            others = _sample(others, int(len(by_loop) * (1 - share) / share + 1e-9), random)
        if limit is not None:
            others = _sample(others, limit - len(by_loop), random)
        return by_loop + others

    def _loop_config(self) -> DecodingConfig:
        """Returns the loop's settings for this problem, whose id chooses the rule."""
        rules = self.config.loop_rules
        digest = hashlib.blake2b(self.problem.problem_id.encode(), digest_size=4).digest()
        loop = loop_config(self.config, rules[int.from_bytes(digest, "big") % len(rules)])
        return replace(loop, seed=derived_seed(self.seed, "loop trace"))

    async def _other_trace(self, loop: DecodingConfig) -> list[list[int]]:
        """Returns the segments of the given trace, or else of one that the target writes alone."""
        if self.problem.trace:
            return _given_trace(self.pair.target, self.problem, self.config.max_trace_tokens)
        alone = replace(target_alone(loop), seed=derived_seed(self.seed, "target trace"))
        return await self._trace(alone)

    async def _trace(self, config: DecodingConfig) -> list[list[int]]:
        """Decodes one trace up to the end of thinking; returns its segments in target tokens."""
        ids: list[int] = []
        async with aclosing(decode(self.pair, self.problem.prompt, config)) as events:
            async for event in events:
                if isinstance(event, ThinkingEnded):
                    break
                if isinstance(event, TextWritten):
                    ids += event.token_ids
        segmenter = self.pair.target.segmenter
        # A streamed chunk may continue after `</think>`.
        return segmenter.split(ids[: segmenter.think_end(ids)])


def loop_config(config: CollectConfig, rule: RuleConfig) -> DecodingConfig:
    """Returns the settings of a loop that writes a trace with one of the rules."""
    return DecodingConfig(
        partial_acceptance=False,
        num_speculative_tokens=0,
        rule=rule,
        sampling=config.sampling,
        max_new_tokens=config.max_trace_tokens,
        max_segment_tokens=config.max_segment_tokens,
    )


async def _no_trace() -> list[list[int]]:
    return []


def _given_trace(target: Model, problem: ProblemText, max_tokens: int) -> list[list[int]]:
    """Returns the segments of a given trace up to the end of thinking, with `<think>` where the target writes it."""
    vocabulary, text = target.vocabulary, problem.trace
    opened = vocabulary.think_start_id is None or text.lstrip().startswith(THINK_START)
    if not opened and not vocabulary.opens_thinking(vocabulary.render_prompt(problem.prompt)):
        text = f"{THINK_START}\n{text}"
    ids = vocabulary.encode(text)
    return target.segmenter.split(ids[: target.segmenter.think_end(ids)][:max_tokens])


def check_trace(target: Model, problem: ProblemText) -> None:
    """Raises ConfigError if a given trace has a single segment only."""
    if problem.trace and len(target.segmenter.split(target.vocabulary.encode(problem.trace))) < 2:
        raise ConfigError(
            f"the trace of problem {problem.problem_id!r} has no blank line inside, so it cannot be split into "
            "segments; put blank lines between its steps, or leave the traces out"
        )


def _prefixes(segments: Sequence[Sequence[int]]) -> list[tuple[tuple[int, ...], ...]]:
    """Returns all prefixes of a trace that another segment follows, from the empty one on."""
    return [tuple(tuple(segment) for segment in segments[:end]) for end in range(len(segments))]


def _sample(items: list[Context], count: int, random: Random) -> list[Context]:
    """Draws `count` of the items without changing their order; returns all if there are no more."""
    if count >= len(items):
        return items
    return [items[index] for index in sorted(random.sample(range(len(items)), max(0, count)))]
