"""The draft's part of a request: the next segment or several for it, on demand or ahead of time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from semanticspec.config import DecodingConfig
from semanticspec.decoding.adaptive import Pacing, ProposalSize
from semanticspec.decoding.pair import Pair
from semanticspec.engines.base import derived_seed
from semanticspec.records import Generation


@dataclass(frozen=True, slots=True)
class Draft:
    """A drafted segment on its way to a verdict.

    Attributes:
        generation: in the draft's own tokens.
        token_ids: in the target's tokens; fewer where the draft wrote a token the target does not have.
    """

    generation: Generation
    token_ids: tuple[int, ...]
    text: str


class Drafter:
    """Writes segments for one request.

    Contexts are the prompt and the output in the draft's tokens; `left` is how many of the target's tokens the output
    may still have; `num_rejected` chooses the random numbers: a rejected draft and its successor are independent.
    """

    def __init__(self, pair: Pair, config: DecodingConfig, pacing: Pacing, request_id: str) -> None:
        self._pair, self._config, self._pacing, self._request_id = pair, config, pacing, request_id
        self._size = ProposalSize(config.num_speculative_tokens) if config.drafts_proposals else None
        self._ahead: asyncio.Task[list[Draft]] | None = None

    @property
    def has_begun(self) -> bool:
        """Whether the next segments are being written already."""
        return self._ahead is not None

    def begin(self, context_ids: list[int], left: int, num_rejected: int) -> None:
        """Begins what `next_segments` or `drop` ends."""
        self._ahead = asyncio.create_task(self._segments(context_ids, left, num_rejected))

    async def drop(self) -> None:
        """Stops what was begun for nothing."""
        if self._ahead is not None:
            self._ahead.cancel()
            await asyncio.wait([self._ahead])
            self._ahead = None

    async def next_segments(self, context_ids: list[int], left: int, num_rejected: int) -> list[Draft]:
        """What was begun, else segments in this context: `num_candidates`, less those that say the same as another.

        None if there is no room, or the draft writes nothing that the target has.
        """
        if self._ahead is None:
            return await self._segments(context_ids, left, num_rejected)
        drafts, self._ahead = await self._ahead, None
        return drafts

    def note(self, *, whole: bool) -> None:
        """Takes notice of a draft that was kept whole, or was not."""
        if self._size is not None:
            self._size.note(whole=whole)

    async def _segments(self, context_ids: list[int], left: int, num_rejected: int) -> list[Draft]:
        """The draft writes up to the next boundary, or a proposal's length."""
        model, config = self._pair.draft, self._config
        room = model.engine.info.max_context_tokens - len(context_ids)
        max_tokens = min(config.max_segment_tokens, left, room, self._pacing.segment_limit() or left)
        if self._size is not None:
            max_tokens = min(max_tokens, self._size.size)
        if max_tokens < 1:
            return []
        stop = model.segmenter.stop
        generations = await model.engine.generate(
            context_ids,
            max_tokens=max_tokens,
            stop=replace(stop, ids=stop.ids | self._pair.to_target.unmapped),
            sampling=config.sampling,
            seed=derived_seed(config.seed, "draft", num_rejected),
            distributions=config.rule.needs_distributions or config.accepts_partially,
            request_id=self._request_id,
        )
        drafts: dict[tuple[int, ...], Draft] = {}
        for generation in generations:
            kept = await self._cut_after_thinking(context_ids, generation)
            ids = tuple(self._pair.to_target.ids(kept.token_ids)[:left])
            if ids and ids not in drafts:
                drafts[ids] = Draft(kept, ids, self._pair.target.vocabulary.decode(ids))
        return list(drafts.values())

    async def _cut_after_thinking(self, context_ids: list[int], generation: Generation) -> Generation:
        """Ends a segment at `</think>` where the tag is plain text and the draft wrote on behind it."""
        model = self._pair.draft
        end = model.segmenter.think_end(generation.token_ids)
        if end is None or end == len(generation.token_ids):
            return generation
        ids = generation.token_ids[:end]
        (score,) = await model.engine.score(context_ids, [ids], request_id=self._request_id)
        rows = generation.distributions[:end] if generation.distributions is not None else None
        return Generation(score.logprobs, score.pooled_state, rows, ids, "stop")
