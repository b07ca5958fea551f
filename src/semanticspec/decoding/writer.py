"""The target's part of a request: decoding by itself, or by verifying tokens that the draft proposes.

Token-level speculation is lossless: whatever the draft proposes, the target's text has the target's distribution.
Source: Leviathan et al. 2023, algorithm 1.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from semanticspec.decoding.adaptive import ProposalSize
from semanticspec.decoding.context import RequestContext
from semanticspec.decoding.drafter import DRAFT_IS_FULL, Drafter
from semanticspec.decoding.pair import Model
from semanticspec.decoding.transcript import Transcript
from semanticspec.decoding.verifiers.base import Verifier
from semanticspec.engines.base import TokenChunk
from semanticspec.records import Event, Stop, TextWritten


class Writer:
    """Writes what the target writes in one request."""

    def __init__(self, request: RequestContext, drafter: Drafter, proposal_verifier: Verifier) -> None:
        """Args:
        proposal_verifier: verifies what the drafter proposes token by token; its verdict's `next_id` is appended.
        """
        self._request, self._drafter, self._verifier = request, drafter, proposal_verifier
        self._size = ProposalSize(request.config.num_speculative_tokens or 0)
        self._proposals: list[tuple[int, int]] = []

    async def segment(self, transcript: Transcript) -> AsyncGenerator[Event, None]:
        """Writes one segment, several while speculation does not pay, or all that is left.

        All that is left if the target finishes or speculation has ended.
        """
        config, clock, policy = self._request.config, self._request.clock, self._request.policy
        to_the_end, max_tokens = self._writes_to_the_end(transcript), transcript.room
        writes_on = not to_the_end and config.max_answer_tokens is None and not policy.segments_pay()
        if not to_the_end and not writes_on:
            max_tokens = min(max_tokens, config.max_segment_tokens)
        elif to_the_end and config.speculate and config.max_answer_tokens is not None:
            max_tokens = min(max_tokens, config.max_answer_tokens)
        written: list[Event] = []
        async with aclosing(self._pieces(transcript, max_tokens, to_the_end or writes_on)) as pieces:
            while True:
                with clock.phase("rewrite"):
                    piece = await anext(pieces, None)
                if piece is None:
                    break
                ids, proposed = piece
                self._request.report_written(len(ids), proposed=proposed)
                events = transcript.append_target(ids)
                written += events
                for event in events:
                    yield event
                if transcript.stop_string_found:  # the target does not know it and would write on
                    break
                if writes_on and self._segment_is_over(transcript, written):
                    transcript.record("target", written, tuple(self._proposals))
                    written = []
                    self._proposals.clear()
                    if policy.segments_pay():
                        break
                if proposed and self._draft_is_full(transcript):
                    yield self._drafter.end_speculation(transcript, DRAFT_IS_FULL)
        if written:
            transcript.record("target", written, tuple(self._proposals))
            self._proposals.clear()
        if to_the_end and not transcript.ended:
            transcript.finish_reason = "length"

    def _writes_to_the_end(self, transcript: Transcript) -> bool:
        """Whether one call writes all that is left. A limit of the answer needs a call that begins with the answer."""
        alone = transcript.speculation_ended is not None and self._request.config.max_answer_tokens is None
        return transcript.target_finishes or alone

    def _segment_is_over(self, transcript: Transcript, written: Sequence[Event]) -> bool:
        num_tokens = sum(len(event.token_ids) for event in written if isinstance(event, TextWritten))
        return transcript.at_segment_end or num_tokens >= self._request.config.max_segment_tokens

    def _draft_is_full(self, transcript: Transcript) -> bool:
        ended = transcript.ended or transcript.speculation_ended is not None
        return not ended and not self._drafter.has_room(transcript)

    async def _pieces(
        self, transcript: Transcript, max_tokens: int, to_the_end: bool
    ) -> AsyncGenerator[tuple[Sequence[int], bool], None]:
        """Yields token ids, and whether they come from a verified proposal. The caller appends each piece."""
        left, ended = max_tokens, False
        stop = _stop(self._request.pair.target, to_the_end)
        proposes = self._request.config.speculate and bool(self._request.config.num_speculative_tokens)
        while proposes and left > 0 and not ended and self._request.policy.tokens_pay():
            previous_id = transcript.target_ids[-1]
            ids = await self._verified_proposal(transcript, left, to_the_end)
            left -= len(ids)
            ended = _ends(stop, previous_id, ids)
            yield ids, True
        if left > 0 and not ended:
            async with aclosing(self._stream(transcript, left, stop)) as chunks:
                async for ids in chunks:
                    yield ids, False

    async def _verified_proposal(
        self, transcript: Transcript, left: int, to_the_end: bool
    ) -> tuple[int, ...]:
        """Returns what the target keeps of a proposal and the token it adds, at most `left` tokens."""
        pair = self._request.pair
        draft_stop = _stop(pair.draft, to_the_end)
        draft = await self._drafter.propose(transcript, min(self._size.size, left), draft_stop)
        if draft is None:
            self._proposals.append((0, 0))
            return await self._one_token(transcript)
        verdict = await self._verifier.verify(transcript, draft)
        self._proposals.append((len(draft.token_ids), verdict.num_kept))
        self._size.report(whole=verdict.accepted)
        kept = draft.token_ids[: verdict.num_kept]
        ended = _ends(_stop(pair.target, to_the_end), transcript.target_ids[-1], kept)
        if verdict.next_id is not None and not ended and len(kept) < left:
            kept += (verdict.next_id,)
        return kept

    async def _stream(
        self, transcript: Transcript, max_tokens: int, stop: Stop
    ) -> AsyncGenerator[tuple[int, ...], None]:
        """Yields the target's tokens as it decodes them."""
        stream = self._request.pair.target.engine.stream(
            transcript.target_ids,
            max_tokens=max_tokens,
            stop=stop,
            sampling=self._request.config.sampling,
            seed=self._request.target_seed,
            request_id=self._request.request_id,
        )
        async with aclosing(stream) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                if isinstance(chunk, TokenChunk):
                    yield chunk.token_ids

    async def _one_token(self, transcript: Transcript) -> tuple[int, ...]:
        """Decodes one token, where the draft has nothing to propose."""
        (generation,) = await self._request.pair.target.engine.generate(
            transcript.target_ids,
            max_tokens=1,
            stop=Stop(),
            sampling=self._request.config.sampling,
            seed=self._request.target_seed,
            request_id=self._request.request_id,
        )
        return generation.token_ids


def _stop(model: Model, to_the_end: bool) -> Stop:
    return model.segmenter.text_stop if to_the_end else model.segmenter.stop


def _ends(stop: Stop, previous_id: int, ids: Sequence[int]) -> bool:
    """Whether tokens that follow `previous_id` end in a stop."""
    if not ids:
        return False
    before = ids[-2] if len(ids) > 1 else previous_id
    return stop.ends(before, ids[-1])
