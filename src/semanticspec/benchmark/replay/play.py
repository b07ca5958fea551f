"""Plays a plan: the real decoding loop on two engines, with the plan's decisions in place of its own.

The models have random weights, so their text means nothing. Engines are wrapped so that each call is as long as the
plan says and segments end where it says; verifiers do their work and then return the planned verdict. Probes, which
are two small perceptrons, are left out.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field, replace
from random import Random
from typing import Any

from semanticspec.benchmark.replay.plan import Counts, Plan, Turn
from semanticspec.benchmark.replay.vocabulary import BOUNDARY, END, PLAIN, THINK_END, synthetic_vocabulary
from semanticspec.decoding.context import RequestContext
from semanticspec.decoding.draft import Draft
from semanticspec.decoding.generate import decode, result_of
from semanticspec.decoding.pair import Model, Pair
from semanticspec.decoding.transcript import Transcript
from semanticspec.decoding.verifiers import RULES, make_proposal_verifier, make_verifier
from semanticspec.decoding.verifiers.base import Verifier
from semanticspec.engines.base import Engine, EngineInfo, ResettableCache, TokenChunk, derived_seed
from semanticspec.errors import EngineError
from semanticspec.records import Generation, Result, Score, Stop, Verdict
from semanticspec.text.chat import PlainText

PHASES = ("prompt_s", "draft_s", "verify_s", "rewrite_s")


@dataclass(frozen=True, slots=True)
class Play:
    """The measurements of one played plan.

    Attributes:
        prompt_s: both models' prefill of the prompt. draft_s: waiting for drafted segments. verify_s: verification,
            partial acceptance included. rewrite_s: everything the target writes, token-level speculation included.
        counts: what was done, counted from the engines' outputs.
        verified: tokens and seconds of every verification.
    """

    wall_s: float
    prompt_s: float
    draft_s: float
    verify_s: float
    rewrite_s: float
    counts: Counts
    verified: tuple[tuple[int, float], ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Play:
        verified = tuple((tokens, seconds) for tokens, seconds in record["verified"])
        return cls(**record | {"counts": Counts(**record["counts"]), "verified": verified})


async def play(plan: Plan, target: Engine, draft: Engine, seed: int = 0) -> Play:
    """Plays a plan from empty caches.

    Raises:
        EngineError: an engine failed, the text does not fit a model's context, or the loop did something else than
            the plan says.
    """
    for engine in (target, draft):
        if isinstance(engine, ResettableCache):
            await engine.reset_cache()
    script = Script.of(plan, seed)
    size = min(target.info.vocabulary_size, draft.info.vocabulary_size)
    vocabulary = synthetic_vocabulary(size)
    random = Random(seed)
    # Two tokens at least: the prefill scores the last one after the others.
    prompt_ids = [random.randrange(PLAIN, size) for _ in range(max(2, plan.prompt_tokens))]
    prompt = PlainText(vocabulary.decode(prompt_ids))
    script.prompt_tokens = len(prompt_ids)
    start = time.perf_counter()
    for engine in (target, draft) if plan.config.speculate else (target,):
        await engine.score(prompt_ids[:-1], [prompt_ids[-1:]], request_id="replay")
    prompt_s = time.perf_counter() - start
    pair = Pair(
        Model(PlannedEngine(target, script, size), vocabulary),
        Model(PlannedEngine(draft, script, size), vocabulary),
    )
    config = replace(
        plan.config,
        seed=seed,
        max_new_tokens=script.num_tokens + plan.config.max_segment_tokens,
        max_repeated_tokens=0,  # random weights write anything
    )
    events = decode(
        pair,
        prompt,
        config,
        verifier=lambda request: PlannedVerifier(request, script),
        proposal_verifier=lambda request: PlannedProposalVerifier(request, script),
        request_id="replay",
    )
    result = await result_of(events)
    wall_s = time.perf_counter() - start
    counts = script.counts(result)
    if counts != plan.counts():
        raise EngineError(f"the replay did {counts} where its plan says {plan.counts()}")
    stats = result.stats
    verified = tuple(script.verified)
    return Play(wall_s, prompt_s, stats.draft_s, stats.verify_s, stats.rewrite_s, counts, verified)


@dataclass(frozen=True, slots=True)
class Proposal:
    """A planned proposal: how many tokens, how many of them are kept, and how many the segment still needs."""

    proposed: int
    kept: int
    left: int


@dataclass
class Script:
    """A plan by position in the output, and the progress through it.

    Attributes:
        turns: turns with a drafted segment, by the position where it starts.
        proposals, streams: what the target writes, by position; streams in tokens.
        num_tokens: length of the output, whose last token ends the text.
        propose_seed: the seed that identifies calls for a proposal, as opposed to a segment.
    """

    num_tokens: int
    propose_seed: int
    overlap: bool
    turns: dict[int, Turn] = field(default_factory=dict)
    proposals: dict[int, Proposal] = field(default_factory=dict)
    streams: dict[int, int] = field(default_factory=dict)
    prompt_tokens: int = 0
    verified: list[tuple[int, float]] = field(default_factory=list)
    checks: int = 0
    decoded_tokens: int = 0

    @classmethod
    def of(cls, plan: Plan, seed: int) -> Script:
        script = cls(plan.counts().num_tokens, derived_seed(seed, "propose"), plan.config.overlap)
        position = 0
        for turn in plan.turns:
            if turn.drafted:
                script.turns[position] = turn
            position += turn.kept + turn.free
            if turn.streamed:
                script.streams[position] = turn.streamed
                position += turn.streamed
            left = turn.proposed_out
            for proposed, kept in turn.proposals:
                script.proposals[position] = Proposal(proposed, kept, left)
                step = min(kept + 1, left)
                position, left = position + step, left - step
        return script

    def end_id(self, position: int) -> int:
        """Returns the token that ends a segment before this position, or the text if this is its end."""
        return END if position == self.num_tokens else BOUNDARY

    def segment_tokens(self, position: int) -> int:
        """Returns the length of the segment to draft at a position; 0 where the target writes without a draft."""
        if position in self.turns:
            return self.turns[position].drafted
        if not self.overlap or position in self.streams or position in self.proposals:
            return 0
        # Drafted ahead after a segment that will be rejected: as long as the next one, and dropped.
        starts = list(self.turns)
        place = bisect_left(starts, position)
        return self.turns[starts[place]].drafted if place < len(starts) else 0

    def counts(self, result: Result) -> Counts:
        """Returns the counts of what was done."""
        sizes = [proposed for segment in result.segments for proposed, _ in segment.proposals]
        return Counts(
            num_tokens=result.stats.num_tokens,
            draft_tokens=result.stats.draft_tokens,
            drafted_tokens=result.stats.drafted_tokens,
            proposed_tokens=sum(sizes),
            verify_passes=len(self.verified),
            checks=self.checks,
            streamed_tokens=self.decoded_tokens,
        )


class PlannedEngine:
    """An engine whose calls are as long as the script says; only the last token of a call can end a segment."""

    def __init__(self, engine: Engine, script: Script, vocabulary_size: int) -> None:
        self._engine, self._script, self._size = engine, script, vocabulary_size

    @property
    def info(self) -> EngineInfo:
        return self._engine.info

    async def generate(
        self,
        context_ids: Sequence[int],
        *,
        max_tokens: int,
        stop: Stop,
        seed: int = 0,
        **options: Any,
    ) -> list[Generation]:
        """Generates a segment, a proposal, or one token of the target."""
        position = len(context_ids) - self._script.prompt_tokens
        num_tokens, last_id = self._planned(position, seed)
        if num_tokens == 0:
            return [Generation((), _no_state(), None, (), "stop")]
        (generation,) = await self._engine.generate(
            context_ids, max_tokens=min(num_tokens, max_tokens), stop=Stop(), seed=seed, **options
        )
        ids = self._plain(generation.token_ids)
        if last_id is not None:
            ids[-1] = last_id
        return [replace(generation, token_ids=tuple(ids))]

    def _planned(self, position: int, seed: int) -> tuple[int, int | None]:
        """Returns how many tokens to generate, and the required id of the last one, if any."""
        script = self._script
        proposal = script.proposals.get(position)
        if seed == script.propose_seed:
            assert proposal is not None
            completes = proposal.kept >= proposal.left
            assert not completes or proposal.kept == proposal.proposed
            return proposal.proposed, script.end_id(position + proposal.kept) if completes else None
        if proposal is not None and proposal.proposed == 0 and position not in script.turns:
            script.decoded_tokens += 1  # the draft had nothing to propose
            return 1, script.end_id(position + 1) if proposal.left == 1 else None
        turn, num_tokens = script.turns.get(position), script.segment_tokens(position)
        judged = turn is None or turn.judged
        return num_tokens, script.end_id(position + num_tokens) if judged else THINK_END

    async def stream(
        self,
        context_ids: Sequence[int],
        *,
        max_tokens: int,
        stop: Stop,
        **options: Any,
    ) -> AsyncIterator[TokenChunk | Generation]:
        """Streams as many tokens as planned."""
        position = len(context_ids) - self._script.prompt_tokens
        left = self._script.streams[position]
        last_id = self._script.end_id(position + left)
        stream = self._engine.stream(context_ids, max_tokens=left, stop=Stop(), **options)
        async with aclosing(stream) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                if not isinstance(chunk, TokenChunk):
                    continue
                ids = self._plain(chunk.token_ids)
                left -= len(ids)
                self._script.decoded_tokens += len(ids)
                if left == 0:
                    ids[-1] = last_id
                yield TokenChunk(tuple(ids))

    async def score(
        self, context_ids: Sequence[int], continuations: Sequence[Sequence[int]], **options: Any
    ) -> list[Score]:
        return await self._engine.score(context_ids, continuations, **options)

    async def aclose(self) -> None:
        await self._engine.aclose()

    def _plain(self, ids: Sequence[int]) -> list[int]:
        """Maps ids to ids that both models have and that end nothing."""
        return [max(i % self._size, PLAIN) for i in ids]


class PlannedVerifier:
    """Verifies a segment as the loop does, then returns the planned verdict."""

    lossy = True

    def __init__(self, request: RequestContext, script: Script) -> None:
        self._script = script
        self.needs_distributions = bool(request.config.partial_acceptance)
        self._by_verdict: dict[bool, Verifier] = {
            accepted: make_verifier(request, RULES["always" if accepted else "never"](request))
            for accepted in (True, False)
        }

    async def verify(self, transcript: Transcript, draft: Draft) -> Verdict:
        turn = self._script.turns[transcript.num_output_tokens]
        start = time.perf_counter()
        await self._by_verdict[turn.accepted].verify(transcript, draft)
        self._script.verified.append((len(draft.token_ids), time.perf_counter() - start))
        self._script.checks += turn.checked
        next_id = None
        if turn.free:
            completes = not turn.accepted and not turn.streamed and not turn.proposals
            after = transcript.num_output_tokens + turn.kept + turn.free
            next_id = self._script.end_id(after) if completes or after == self._script.num_tokens else PLAIN
        return Verdict(turn.accepted, turn.kept, "replayed", next_id)


class PlannedProposalVerifier:
    """Verifies a proposal as the loop does, then returns the planned verdict."""

    lossy = needs_distributions = True

    def __init__(self, request: RequestContext, script: Script) -> None:
        self._script, self._verifier = script, make_proposal_verifier(request)

    async def verify(self, transcript: Transcript, draft: Draft) -> Verdict:
        plan = self._script.proposals[transcript.num_output_tokens]
        await self._verifier.verify(transcript, draft)
        self._script.checks += 1
        after = transcript.num_output_tokens + plan.kept + 1
        next_id = self._script.end_id(after) if plan.kept + 1 >= plan.left else PLAIN
        return Verdict(plan.kept == plan.proposed, plan.kept, "replayed", next_id)


def _no_state() -> Any:
    import torch

    return torch.zeros(0)
