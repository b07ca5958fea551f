"""The target's part of a request: writing, by itself or by checking tokens that the draft proposes.

Token-level speculation is lossless: given that the target is to write, it writes with its own distribution.
Source: Leviathan et al. 2023, algorithm 1.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from random import Random

from semanticspec.config import DecodingConfig, RuleConfig
from semanticspec.decoding.acceptance import Evidence, decide
from semanticspec.decoding.adaptive import Pacing, ProposalSize
from semanticspec.decoding.pair import Model, Pair
from semanticspec.decoding.transcript import Transcript
from semanticspec.engines.base import TokenChunk, derived_seed
from semanticspec.records import Generation, Score, Stop, Verdict

TOKEN_RULE = RuleConfig("token")


class TargetWriter:
    """What the target writes in one request, by itself or by checking what the draft proposes."""

    def __init__(
        self, pair: Pair, config: DecodingConfig, pacing: Pacing, random: Random, request_id: str
    ) -> None:
        self._pair, self._config, self._pacing = pair, config, pacing
        self._random, self._request_id = random, request_id
        self._size = ProposalSize(config.num_speculative_tokens)
        self._proposals: list[tuple[int, int]] = []
        self._target_seed = derived_seed(config.seed, "target")

    async def write(
        self, transcript: Transcript, max_tokens: int, *, to_the_end: bool
    ) -> AsyncGenerator[tuple[tuple[int, ...], bool], None]:
        """Up to the end of the segment (or of the text) or `max_tokens`, piece by piece.

        The caller appends a piece to the transcript before it asks for the next. With each comes whether it was
        written by checking a proposal.
        """
        left, ended = max_tokens, False
        proposes = self._config.speculate and self._config.num_speculative_tokens > 0
        while proposes and left > 0 and not ended and self._pacing.tokens_pay():
            previous_id = transcript.target_ids[-1]
            ids = await self._checked_proposal(transcript, left, to_the_end)
            left -= len(ids)
            ended = _ends(self._pair.target, previous_id, ids, to_the_end)
            yield ids, True
        if left > 0 and not ended:
            async with aclosing(self._streamed(transcript, left, to_the_end)) as chunks:
                async for ids in chunks:
                    yield ids, False

    async def _streamed(
        self, transcript: Transcript, max_tokens: int, to_the_end: bool
    ) -> AsyncGenerator[tuple[int, ...], None]:
        """The target's tokens as it writes them by itself."""
        stream = self._pair.target.engine.stream(
            transcript.target_ids,
            max_tokens=max_tokens,
            stop=_stop(self._pair.target, to_the_end),
            sampling=self._config.sampling,
            seed=self._target_seed,
            request_id=self._request_id,
        )
        async with aclosing(stream) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                if isinstance(chunk, TokenChunk):
                    yield chunk.token_ids

    def take_proposals(self) -> tuple[tuple[int, int], ...]:
        """Sizes of the proposals since the last call, see `Segment.proposals`."""
        taken, self._proposals = tuple(self._proposals), []
        return taken

    async def read(self, transcript: Transcript, ids: Sequence[int]) -> Score:
        """What the target makes of a continuation in its own tokens, with its distributions."""
        (score,) = await self._pair.target.engine.score(
            transcript.target_ids,
            [ids],
            sampling=self._config.sampling,
            seed=self._target_seed,
            distributions=True,
            request_id=self._request_id,
        )
        return score

    def check(self, ids: Sequence[int], proposal: Generation, score: Score) -> Verdict:
        """Which beginning of a continuation token-level speculation keeps, and the token after it.

        Args:
            ids: the continuation in the target's tokens.
            proposal, score: as the draft wrote it and as the target read it, with distributions under the sampling
                settings of the request.
        """
        assert proposal.distributions is not None
        evidence = Evidence(
            tuple(ids),
            target_distributions=score.distributions,
            draft_distributions=self._pair.to_target.distributions(proposal.distributions),
        )
        verdict = decide(TOKEN_RULE, evidence, self._random)
        if not verdict.accepted:
            return verdict
        return Verdict(True, verdict.num_kept, verdict.reason, score.next_token_id)

    async def _checked_proposal(self, transcript: Transcript, left: int, to_the_end: bool) -> tuple[int, ...]:
        """One proposal: the tokens kept of it and the one that the target adds, never more than `left`."""
        draft = self._pair.draft
        room = min(self._size.size, left, draft.engine.info.max_context_tokens - len(transcript.draft_ids))
        ids: list[int] = []
        if room > 0:
            stop = _stop(draft, to_the_end)
            (proposal,) = await draft.engine.generate(
                transcript.draft_ids,
                max_tokens=room,
                stop=replace(stop, ids=stop.ids | self._pair.to_target.unmapped),
                sampling=self._config.sampling,
                seed=derived_seed(self._config.seed, "propose"),
                distributions=True,
                request_id=self._request_id,
            )
            ids = list(self._pair.to_target.ids(proposal.token_ids))
        if not ids:
            self._proposals.append((0, 0))
            return await self._plain(transcript)
        verdict = self.check(ids, proposal, await self.read(transcript, ids))
        self._proposals.append((len(ids), verdict.num_kept))
        self._size.note(whole=verdict.num_kept == len(ids))
        kept = ids[: verdict.num_kept]
        ended = _ends(self._pair.target, transcript.target_ids[-1], kept, to_the_end)
        if verdict.replacement_id is not None and not ended and len(kept) < left:
            kept.append(verdict.replacement_id)
        return tuple(kept)

    async def _plain(self, transcript: Transcript) -> tuple[int, ...]:
        """One token by the target alone, where the draft has none to propose."""
        (generation,) = await self._pair.target.engine.generate(
            transcript.target_ids,
            max_tokens=1,
            stop=Stop(),
            sampling=self._config.sampling,
            seed=self._target_seed,
            request_id=self._request_id,
        )
        return generation.token_ids


def _ends(model: Model, previous_id: int, ids: Sequence[int], to_the_end: bool) -> bool:
    """Whether tokens that follow `previous_id` end in a stop."""
    if not ids:
        return False
    before = ids[-2] if len(ids) > 1 else previous_id
    return _stop(model, to_the_end).ends(before, ids[-1])


def _stop(model: Model, to_the_end: bool) -> Stop:
    return model.segmenter.text_stop if to_the_end else model.segmenter.stop
