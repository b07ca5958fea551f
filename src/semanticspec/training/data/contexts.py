"""Where both models are sampled: places in reasoning that the loop wrote, that the target wrote, or that was given."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from random import Random

from semanticspec.config import DecodingConfig, RuleConfig, target_alone
from semanticspec.decoding.loop import decode
from semanticspec.decoding.pair import Model, Pair
from semanticspec.engines.base import derived_seed, position_uniform
from semanticspec.errors import ConfigError
from semanticspec.records import TextWritten, ThinkingEnded
from semanticspec.text.chat import THINK_START
from semanticspec.training.data.problems import ProblemText
from semanticspec.training.data.settings import CollectConfig
from semanticspec.training.data.storage import Origin


@dataclass(frozen=True, slots=True)
class Context:
    """A place to sample at: output so far, cut into segments, in the target's tokens."""

    origin: Origin
    segments: tuple[tuple[int, ...], ...]


class ContextFinder:
    """Writes the traces of one problem, as far as they are needed, and draws places in them."""

    def __init__(self, pair: Pair, config: CollectConfig, problem: ProblemText, seed: int) -> None:
        self.pair, self.config, self.problem, self.seed = pair, config, problem, seed

    async def find(self) -> list[Context]:
        """The places to sample at; one that both traces have counts as the loop's."""
        with_loop, with_other = self._traces_needed()
        loop = self._loop()
        nothing: list[list[int]] = []
        by_loop, by_other = await asyncio.gather(
            self._trace(loop) if with_loop else _done(nothing),
            self._other_trace(loop) if with_other else _done(nothing),
        )
        other: Origin = "given" if self.problem.trace else "target"
        places: dict[tuple[tuple[int, ...], ...], Origin] = dict.fromkeys(_cuts(by_loop), "loop")
        for cut in _cuts(by_other):
            places.setdefault(cut, other)
        contexts = [Context(origin, cut) for cut, origin in places.items()]
        return self._choose(contexts)

    def _traces_needed(self) -> tuple[bool, bool]:
        """Whether the loop's trace will be used, and whether the other one will."""
        share, room = self.config.loop_share, self.config.max_contexts
        if self.config.one_trace:
            by_loop = position_uniform(self.seed, 0) < share
            return by_loop, not by_loop
        return share > 0, room is None or int(room * (1 - share)) > 0

    def _choose(self, contexts: list[Context]) -> list[Context]:
        """Draws at most `max_contexts`, and of those not the loop's no more than its share allows."""
        random = Random(derived_seed(self.seed, "contexts"))
        share, room = self.config.loop_share, self.config.max_contexts
        by_loop = [context for context in contexts if context.origin == "loop"]
        others = [context for context in contexts if context.origin != "loop"]
        if self.config.one_trace:
            return _sample(contexts, len(contexts) if room is None else room, random)
        if room is not None:
            num_others = min(len(others), int(room * (1 - share)))
            by_loop = _sample(by_loop, room - num_others, random)
        if share > 0:
            others = _sample(others, int(len(by_loop) * (1 - share) / share + 1e-9), random)
        if room is not None:
            others = _sample(others, room - len(by_loop), random)
        return by_loop + others

    def _loop(self) -> DecodingConfig:
        """How the loop writes on this problem."""
        rules = self.config.loop_rules
        digest = hashlib.blake2b(self.problem.problem_id.encode(), digest_size=4).digest()
        loop = loop_config(self.config, rules[int.from_bytes(digest, "big") % len(rules)])
        return replace(loop, seed=derived_seed(self.seed, "loop trace"))

    async def _other_trace(self, loop: DecodingConfig) -> list[list[int]]:
        """The segments of the trace that was given, else of one the target writes alone."""
        if self.problem.trace:
            return _given_trace(self.pair.target, self.problem, self.config.max_trace_tokens)
        alone = replace(target_alone(loop), seed=derived_seed(self.seed, "target trace"))
        return await self._trace(alone)

    async def _trace(self, config: DecodingConfig) -> list[list[int]]:
        """The segments of one reasoning, in the target's tokens, up to the end of thinking."""
        ids: list[int] = []
        async with aclosing(decode(self.pair, self.problem.prompt, config)) as events:
            async for event in events:
                if isinstance(event, ThinkingEnded):
                    break
                if isinstance(event, TextWritten):
                    ids += event.token_ids
        return self.pair.target.segmenter.split(ids)


def loop_config(config: CollectConfig, rule: RuleConfig) -> DecodingConfig:
    """How the loop writes a trace by one of the rules."""
    return DecodingConfig(
        rule=rule,
        sampling=config.sampling,
        max_new_tokens=config.max_trace_tokens,
        max_segment_tokens=config.max_segment_tokens,
    )


async def _done(value: list[list[int]]) -> list[list[int]]:
    return value


def _given_trace(target: Model, problem: ProblemText, max_tokens: int) -> list[list[int]]:
    """A given trace as the target would have written it: its segments up to the end of thinking."""
    vocabulary, text = target.vocabulary, problem.trace
    opened = vocabulary.think_start_id is None or text.lstrip().startswith(THINK_START)
    if not opened and not vocabulary.opens_thinking(vocabulary.render_prompt(problem.prompt)):
        text = f"{THINK_START}\n{text}"
    ids = vocabulary.encode(text)
    return target.segmenter.split(ids[: target.segmenter.think_end(ids)][:max_tokens])


def check_trace(target: Model, problem: ProblemText) -> None:
    """Raises ConfigError for a given trace that holds one segment only."""
    if problem.trace and len(target.segmenter.split(target.vocabulary.encode(problem.trace))) < 2:
        raise ConfigError(
            f"the trace of problem {problem.problem_id!r} has no blank line inside, so it cannot be cut into "
            "segments; put blank lines between its steps, or leave the traces out"
        )


def _cuts(segments: Sequence[Sequence[int]]) -> list[tuple[tuple[int, ...], ...]]:
    """All beginnings of a trace that another segment follows, the empty one first."""
    return [tuple(tuple(segment) for segment in segments[:end]) for end in range(len(segments))]


def _sample(items: list[Context], count: int, random: Random) -> list[Context]:
    """Draws `count` of the items, kept in order; all if there are not more."""
    if count >= len(items):
        return items
    return [items[index] for index in sorted(random.sample(range(len(items)), max(0, count)))]
