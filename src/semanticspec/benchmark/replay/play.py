"""Playing a plan on two engines: every call is the one that the decoding loop would make, and is timed.

The texts mean nothing: the engines sample from random weights and stop at no boundary, so that every call is as long
as the plan says. Left out are the probes (two small perceptrons) and text: nothing is decoded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from semanticspec.benchmark.replay.plan import Counts, Plan, Turn
from semanticspec.decoding.acceptance import Evidence, decide
from semanticspec.decoding.transcript import Clock
from semanticspec.decoding.writer import TOKEN_RULE
from semanticspec.engines.base import Engine, Forgetting, TokenChunk
from semanticspec.errors import EngineError
from semanticspec.records import Generation, Sampling, Score, Stop

PHASES = ("prompt_s", "draft_s", "verify_s", "rewrite_s")
_SAMPLING = Sampling()


@dataclass(frozen=True, slots=True)
class Play:
    """What one plan took.

    Attributes:
        prompt_s: the models' reading of the prompt. draft_s: waiting for drafted segments. verify_s: the target's
            reading of them, for a beginning to keep too. rewrite_s: all that the target writes, proposals and their
            checks included.
        counts: what was really done, counted from the engines' answers.
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
        EngineError: an engine failed, or the text does not fit a model's context.
    """
    for engine in (target, draft):
        if isinstance(engine, Forgetting):
            await engine.forget()
    return await _Player(plan, target, draft, seed).run()


class _Player:
    """One play. Follows `decoding.Request` call by call, with the plan's decisions in place of its own."""

    def __init__(self, plan: Plan, target: Engine, draft: Engine, seed: int) -> None:
        self.plan, self.target, self.draft, self.seed = plan, target, draft, seed
        self.random = Random(seed)
        self.target_ids = self._prompt_ids()
        self.draft_ids = list(self.target_ids)
        self.clock = Clock()
        self.counted = dict.fromkeys(asdict(Counts()), 0)
        self.verified: list[tuple[int, float]] = []
        self.ahead: asyncio.Task[Generation] | None = None

    async def run(self) -> Play:
        start = time.perf_counter()
        await self._read_prompt()
        prompt_s = time.perf_counter() - start
        try:
            for index, turn in enumerate(self.plan.turns):
                await self._take(turn, self.plan.turns[index + 1 : index + 2])
        finally:
            await self._drop_ahead()
        wall_s = time.perf_counter() - start
        spent = self.clock.seconds
        counts = Counts(**self.counted)
        if counts != self.plan.counts():
            raise EngineError(f"the replay did {counts} where its plan says {self.plan.counts()}")
        return Play(
            wall_s, prompt_s, spent["draft"], spent["verify"], spent["rewrite"], counts, tuple(self.verified)
        )

    async def _take(self, turn: Turn, following: Sequence[Turn]) -> None:
        """One turn of the loop."""
        if turn.drafted:
            await self._segment(turn, following[0].drafted if following else 0)
        if turn.streamed:
            with self.clock.phase("rewrite"):
                await self._stream(turn.streamed)
        left = turn.proposed_out
        for proposed, kept in turn.proposals:
            with self.clock.phase("rewrite"):
                left -= await self._propose(proposed, kept, left)

    async def _segment(self, turn: Turn, next_drafted: int) -> None:
        """Drafts a segment, has it read, keeps of it what the plan says."""
        with self.clock.phase("draft"):
            if self.ahead is not None:
                generation, self.ahead = await self.ahead, None
            else:
                generation = await self._draft(self.draft_ids, turn.drafted, self.plan.distributions)
        self.counted["drafted_tokens"] += len(generation.token_ids)
        if not turn.judged:
            return
        ids = _known(generation.token_ids, self.target)
        if self.plan.overlap and next_drafted:
            context = [*self.draft_ids, *generation.token_ids]
            self.ahead = asyncio.create_task(self._draft(context, next_drafted, self.plan.distributions))
        score = await self._verify(ids, bonus=turn.accepted and turn.free > 0)
        next_id = score.next_token_id or 0
        if turn.checked:
            with self.clock.phase("verify"):
                next_id = self._check(ids, generation, score)
        self._append(generation.token_ids[: turn.kept], ids[: turn.kept], by_draft=True)
        if turn.free:
            self._append_target([next_id])
        if not turn.accepted:
            await self._drop_ahead()

    async def _draft(self, context_ids: list[int], num_tokens: int, distributions: bool) -> Generation:
        (generation,) = await self.draft.generate(
            context_ids,
            max_tokens=num_tokens,
            stop=Stop(),
            sampling=_SAMPLING,
            seed=self.seed,
            distributions=distributions,
            request_id="replay",
        )
        return generation

    async def _verify(self, ids: list[int], *, bonus: bool) -> Score:
        """The target reads a segment, and draws the token it would go on with where that is asked for."""
        start = time.perf_counter()
        with self.clock.phase("verify"):
            score = await self._read(ids, draws=bonus, distributions=self.plan.distributions)
        self.verified.append((len(score.logprobs), time.perf_counter() - start))
        self.counted["verify_passes"] += 1
        return score

    async def _read(self, ids: list[int], *, draws: bool, distributions: bool) -> Score:
        (score,) = await self.target.score(
            self.target_ids,
            [ids],
            sampling=_SAMPLING if draws or distributions else None,
            seed=self.seed,
            distributions=distributions,
            request_id="replay",
        )
        return score

    def _check(self, ids: list[int], proposal: Generation, score: Score) -> int:
        """The token rule looks at tokens that the target has read; returns a token to go on with.

        What the rule finds in random weights is dropped, the plan has the decision. It looks at fewer tokens than it
        would with real ones, since the first of them mostly fails.
        """
        evidence = Evidence(
            tuple(ids),
            target_distributions=score.distributions,
            draft_distributions=proposal.distributions,
        )
        verdict = decide(TOKEN_RULE, evidence, self.random)
        self.counted["checks"] += 1
        found = score.next_token_id if verdict.replacement_id is None else verdict.replacement_id
        return found or 0

    async def _propose(self, proposed: int, kept: int, left: int) -> int:
        """One proposal of the draft and its check; returns how many tokens of the output it gave."""
        if not proposed:
            await self._stream(1)
            return 1
        proposal = await self._draft(self.draft_ids, proposed, distributions=True)
        self.counted["proposed_tokens"] += len(proposal.token_ids)
        ids = _known(proposal.token_ids, self.target)
        score = await self._read(ids, draws=True, distributions=True)
        next_id = self._check(ids, proposal, score)
        self._append(proposal.token_ids[:kept], ids[:kept], by_draft=False)
        if kept < left:
            self._append_target([next_id])
        return min(kept + 1, left)

    async def _stream(self, num_tokens: int) -> None:
        """The target writes so many tokens."""
        stream = self.target.stream(
            self.target_ids,
            max_tokens=num_tokens,
            stop=Stop(),
            sampling=_SAMPLING,
            seed=self.seed,
            request_id="replay",
        )
        async with aclosing(stream) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                if isinstance(chunk, TokenChunk):
                    self._append_target(chunk.token_ids)
                    self.counted["streamed_tokens"] += len(chunk.token_ids)

    def _append_target(self, ids: Sequence[int]) -> None:
        self._append(_known(ids, self.draft), list(ids), by_draft=False)

    def _append(self, draft_ids: Sequence[int], target_ids: Sequence[int], *, by_draft: bool) -> None:
        """Appends tokens to both contexts, in the ids of each."""
        self.draft_ids += draft_ids
        self.target_ids += target_ids
        self.counted["num_tokens"] += len(target_ids)
        self.counted["draft_tokens"] += len(target_ids) if by_draft else 0

    async def _read_prompt(self) -> None:
        """Both read the prompt first, so that no other phase holds it; the loop's first calls would."""
        *context, last = self.target_ids
        for engine in (self.target, self.draft) if self.plan.with_draft else (self.target,):
            await engine.score(context, [[last]], request_id="replay")

    async def _drop_ahead(self) -> None:
        """Stops a draft that was begun for nothing."""
        if self.ahead is not None:
            self.ahead.cancel()
            await asyncio.wait([self.ahead])
            self.ahead = None

    def _prompt_ids(self) -> list[int]:
        """Random ids that both models know; two at least, for one is read after the other."""
        known = min(self.target.info.vocabulary_size, self.draft.info.vocabulary_size)
        return [self.random.randrange(known) for _ in range(max(2, self.plan.prompt_tokens))]


def _known(ids: Sequence[int], engine: Engine) -> list[int]:
    """Ids that the engine's model has a row for: vocabularies of one family differ by their padding."""
    return [i % engine.info.vocabulary_size for i in ids]
