"""Finds the contexts of a problem: prefixes of reasoning traces, at which both models are sampled.

A trace is written by the speculative loop or by the target alone, or it is given: with the problem, or as an answer
that the target has written before.

With `max_context_segments` = N the places of the contexts are drawn before a trace is written: a random order of
0 to N - 1 segments, of which the first `max_contexts` places that the trace has are used. With `one_trace`, a trace is
stopped once it has reached these places, which are drawn again only if it turns out to be shorter. The places do not
depend on what is written. Given a trace, they are therefore a uniform draw without replacement from its first N places,
as they would be from the whole trace. The one difference: places after the first N are never drawn.
Traces are then at most as long as so many segments of `max_segment_tokens`.
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

Prefix = tuple[tuple[int, ...], ...]
"""The first segments of a trace, in the target's tokens."""


@dataclass(frozen=True, slots=True)
class Context:
    """The output so far as segments of target tokens, and who wrote it."""

    origin: Origin
    segments: Prefix


class ContextFinder:
    """Writes the traces of one problem that are needed, and draws contexts from them."""

    def __init__(
        self,
        pair: Pair,
        config: CollectConfig,
        problem: ProblemText,
        seed: int,
        answer: Sequence[int] = (),
    ) -> None:
        """Plans the contexts of one problem.

        Args:
            answer: token ids of an answer that the target has written before; used instead of a trace by the target.
        """
        self.pair, self.config, self.problem, self.seed = pair, config, problem, seed
        self.answer = answer

    async def find(self) -> list[Context]:
        """Returns the contexts; a prefix of both traces counts as written by the loop."""
        with_loop, with_other = self._traces_needed()
        loop, order, limit = self._loop_config(), self._order_of_places(), self.config.max_contexts
        early = order is not None and self.config.one_trace
        last = None if order is None else max(order[:limit] if early else order)
        if (
            last is not None
        ):  # engines that reserve memory for the longest output can then decode more traces at once
            longest = max(1, (last + 1) * self.config.max_segment_tokens)
            loop = replace(loop, max_new_tokens=min(loop.max_new_tokens, longest))
        by_loop, by_other = await asyncio.gather(
            self._trace(loop, last) if with_loop else _no_trace(),
            self._other_trace(loop, last) if with_other else _no_trace(),
        )
        other: Origin = "given" if self.problem.trace else "target"
        origins: dict[Prefix, Origin] = dict.fromkeys(by_loop, "loop")
        for prefix in by_other:
            origins.setdefault(prefix, other)
        contexts = [Context(origin, prefix) for prefix, origin in origins.items()]
        if order is None or not early:
            return self._choose(contexts)
        # One trace: its prefix of n segments is number n. It reaches the drawn places, unless it has ended before.
        return [contexts[place] for place in sorted([p for p in order if p < len(contexts)][:limit])]

    def _order_of_places(self) -> list[int] | None:
        """Returns the places of contexts, as numbers of segments, in the order in which they are preferred."""
        count = self.config.max_context_segments
        if count is None:
            return None
        return Random(derived_seed(self.seed, "places")).sample(range(count), count)

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

    async def _other_trace(self, loop: DecodingConfig, last: int | None) -> list[Prefix]:
        """Returns the prefixes of the given trace or answer, or else of a trace that the target writes alone."""
        target, max_tokens = self.pair.target, self.config.max_trace_tokens
        if self.problem.trace:
            return _prefixes(_given_trace(target, self.problem, max_tokens), last)
        if self.answer:
            return _prefixes(_split(target, self.answer[:max_tokens]), last)
        alone = replace(target_alone(loop), seed=derived_seed(self.seed, "target trace"))
        return await self._trace(alone, last)

    async def _trace(self, config: DecodingConfig, last: int | None) -> list[Prefix]:
        """Decodes one trace up to the end of thinking, or until it has `last` segments; returns its prefixes."""
        if last == 0:
            return [()]
        target = self.pair.target
        ids: list[int] = []
        async with aclosing(decode(self.pair, self.problem.prompt, config)) as events:
            async for event in events:
                if isinstance(event, ThinkingEnded):
                    break
                if isinstance(event, TextWritten):
                    ids += event.token_ids
                    if last is not None and _num_followed(target, ids) >= last:
                        return _prefixes([*_split(target, ids), []], last)
        return _prefixes(_split(target, ids), last)


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


async def _no_trace() -> list[Prefix]:
    return []


def _split(target: Model, ids: Sequence[int]) -> list[list[int]]:
    """Returns the segments of an output up to the end of thinking. A streamed chunk may continue after `</think>`."""
    return target.segmenter.split(ids[: target.segmenter.think_end(ids)])


def _num_followed(target: Model, ids: Sequence[int]) -> int:
    """Returns how many segments of an unfinished output are complete, with more to follow."""
    if not ids or target.segmenter.think_end(ids) is not None or ids[-1] in target.vocabulary.end_ids:
        return 0
    segments = target.segmenter.split(ids)
    previous = ids[-2] if len(ids) > 1 else -1
    return len(segments) - (not target.segmenter.stop.ends(previous, ids[-1]))


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


def _prefixes(segments: Sequence[Sequence[int]], last: int | None = None) -> list[Prefix]:
    """Returns the prefixes of a trace that another segment follows, from the empty one on.

    Args:
        last: number of segments of the longest; None = all but the whole trace.
    """
    whole = tuple(map(tuple, segments))
    count = len(whole) if last is None else min(len(whole), last + 1)
    return [whole[:end] for end in range(count)]


def _sample(items: list[Context], count: int, random: Random) -> list[Context]:
    """Draws `count` of the items without changing their order; returns all if there are no more."""
    if count >= len(items):
        return items
    return [items[index] for index in sorted(random.sample(range(len(items)), max(0, count)))]
