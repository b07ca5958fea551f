"""The draft model's part of a request: segments, on demand or ahead of time, and short proposals."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from semanticspec.decoding.adaptive import NeverSpeculate, ProposalSize
from semanticspec.decoding.context import RequestContext
from semanticspec.decoding.draft import Draft
from semanticspec.decoding.transcript import Transcript
from semanticspec.engines.base import derived_seed
from semanticspec.records import Generation, SpeculationEnded, Stop

DRAFT_IS_FULL = "the draft's context is used up"


class Drafter:
    """Drafts the segments and proposals of one request."""

    def __init__(self, request: RequestContext, *, distributions: bool) -> None:
        """Args:
        distributions: segments hold full distributions; proposals always do.
        """
        self._request, self._distributions = request, distributions
        config = request.config
        self._size = ProposalSize(config.num_speculative_tokens or 0) if config.drafts_proposals else None
        self._ahead: asyncio.Task[Draft | None] | None = None

    def has_room(self, transcript: Transcript) -> bool:
        """Returns whether the draft's context has room for another token; True where nothing is drafted at all."""
        limit = self._request.pair.draft.engine.info.max_context_tokens
        return not self._request.config.speculate or len(transcript.draft_ids) < limit

    def end_speculation(self, transcript: Transcript, reason: str) -> SpeculationEnded:
        """Lets the target write alone from here on."""
        self._request.policy = NeverSpeculate()
        return transcript.end_speculation(reason)

    async def next_segment(self, transcript: Transcript) -> Draft | None:
        """Returns the next drafted segment, which may have been started ahead of time.

        None if speculation does not pay at the moment, if there is no room, if the target must first complete a
        character, or if there is nothing to verify.
        """
        policy = self._request.policy
        if self._ahead is None and not (transcript.draft_can_continue and policy.segments_pay()):
            return None
        with self._request.clock.phase("draft"):
            if self._ahead is None:
                draft = await self._segment(transcript.draft_ids, transcript.room, transcript.num_rejected)
            else:
                draft, self._ahead = await self._ahead, None
        if draft is not None:
            transcript.count_draft(draft)
        return draft

    def draft_ahead(self, transcript: Transcript, draft: Draft) -> None:
        """Starts the segment after `draft` while `draft` is being verified, as if it were accepted."""
        config, target = self._request.config, self._request.pair.target
        if not config.overlap or config.adds_token:  # with an added token the next context is not known yet
            return
        left = transcript.room - len(draft.token_ids)
        drafts_on = transcript.thinking_ended or config.speculate_answer
        answer_follows = not drafts_on and target.segmenter.think_end(draft.token_ids) is not None
        ends = not draft.token_ids or draft.token_ids[-1] in target.vocabulary.end_ids
        if left < 1 or answer_follows or ends:
            return
        context_ids = transcript.draft_ids_after(draft.token_ids)
        self._ahead = asyncio.create_task(self._segment(context_ids, left, transcript.num_rejected))

    async def cancel(self) -> None:
        """Stops a segment that was started ahead of time."""
        if self._ahead is not None:
            self._ahead.cancel()
            await asyncio.wait([self._ahead])
            self._ahead = None

    def report(self, *, accepted: bool) -> None:
        """Reports the verdict on the last segment: it sets the length of the next one under the rule `token`."""
        if self._size is not None:
            self._size.report(whole=accepted)

    async def propose(self, transcript: Transcript, num_tokens: int, stop: Stop) -> Draft | None:
        """Drafts a proposal of up to `num_tokens` tokens for the target to verify. None if there is nothing to propose.

        Args:
            stop: where the proposal ends, in the draft's tokens.
        """
        engine = self._request.pair.draft.engine
        num_tokens = min(num_tokens, engine.info.max_context_tokens - len(transcript.draft_ids))
        if num_tokens < 1:
            return None
        seed = derived_seed(self._request.config.seed, "propose")
        stop = self._ends_when_unsure(stop)
        generation = await self._generate(transcript.draft_ids, num_tokens, stop, seed, distributions=True)
        return self._draft(generation, num_tokens)

    async def _segment(self, context_ids: list[int], left: int, num_rejected: int) -> Draft | None:
        """Drafts up to the next segment end.

        Args:
            context_ids: prompt and output in the draft's tokens.
            left: how many of the target's tokens the output may still have.
            num_rejected: selects the random numbers, so that a rejected draft and its successor are independent.
        """
        model, config = self._request.pair.draft, self._request.config
        room = model.engine.info.max_context_tokens - len(context_ids)
        limits = [config.max_segment_tokens, left, room]
        limits += [limit for limit in (self._request.policy.segment_limit(),) if limit is not None]
        limits += [self._size.size] if self._size is not None else []
        max_tokens = min(limits)
        if max_tokens < 1:
            return None
        seed = derived_seed(config.seed, "draft", num_rejected)
        stop = model.segmenter.stop
        if config.drafts_proposals:
            stop = self._ends_when_unsure(stop)
        generation = await self._generate(
            context_ids, max_tokens, stop, seed, distributions=self._distributions
        )
        generation = await self._cut(context_ids, generation)
        return self._draft(generation, left)

    def _ends_when_unsure(self, stop: Stop) -> Stop:
        """Returns the stop of a proposal, which also ends after a token that the target will probably not keep."""
        default = self._request.config.min_proposal_likelihood
        return replace(stop, min_likelihood=self._request.policy.min_likelihood(default))

    def _draft(self, generation: Generation, left: int) -> Draft | None:
        """Translates a generation; None if there is nothing to verify."""
        ids = tuple(self._request.pair.to_target.ids(generation.token_ids)[:left])
        verifiable = bool(ids) or (generation.distributions is not None and len(generation.token_ids) > 0)
        return Draft(generation, ids) if verifiable else None

    async def _generate(
        self, context_ids: list[int], max_tokens: int, stop: Stop, seed: int, *, distributions: bool
    ) -> Generation:
        """Generates up to a stop, up to a token that the target does not have, or up to one that ends its text."""
        (generation,) = await self._request.pair.draft.engine.generate(
            context_ids,
            max_tokens=max_tokens,
            stop=self._request.pair.draft_stop(stop),
            sampling=self._request.config.sampling,
            seed=seed,
            distributions=distributions,
            request_id=self._request.request_id,
        )
        return generation

    async def _cut(self, context_ids: list[int], generation: Generation) -> Generation:
        """Cuts a segment after `</think>` where the tag is plain text, and before a character that is not complete."""
        model, ids = self._request.pair.draft, generation.token_ids
        ids = ids[: model.segmenter.think_end(ids)]
        ids = ids[: self._request.pair.to_target.num_usable(ids)]
        if not ids or len(ids) == len(generation.token_ids):
            return generation
        request_id = self._request.request_id
        (score,) = await model.engine.score(context_ids, [ids], request_id=request_id)
        rows = generation.distributions[: len(ids)] if generation.distributions is not None else None
        return Generation(score.logprobs, score.pooled_state, rows, ids, "stop")
