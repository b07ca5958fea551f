"""The decoding loop: draft a segment, let the target verify it, keep it or have the target rewrite it.

Source: SemanticSpec (arXiv 2602.03708), algorithm 1; deviations are options of `DecodingConfig`. The loop is open
where methods differ: a `Verifier` decides what is kept, a `Listener` may watch. See docs/architecture.md.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from typing import Protocol

from semanticspec.decoding.context import RequestContext
from semanticspec.decoding.draft import Draft
from semanticspec.decoding.drafter import DRAFT_IS_FULL, Drafter
from semanticspec.decoding.transcript import Transcript
from semanticspec.decoding.verifiers.base import Verifier
from semanticspec.decoding.writer import Writer
from semanticspec.records import Event, Finished, SegmentDecided, SegmentDrafted, Verdict


class Listener(Protocol):
    """Watches the verdicts of a request."""

    def on_verdict(self, transcript: Transcript, draft: Draft, verdict: Verdict) -> None:
        """Called after each verdict, before anything of the draft is kept."""
        ...


async def run_loop(
    request: RequestContext,
    transcript: Transcript,
    verifier: Verifier,
    proposal_verifier: Verifier,
    listener: Listener | None = None,
) -> AsyncGenerator[Event, None]:
    """Runs one request; yields what happens, `Finished` last.

    Args:
        verifier: decides on drafted segments.
        proposal_verifier: decides on the short proposals by which the target writes with token-level speculation.
    """
    drafter = Drafter(request, distributions=verifier.needs_distributions)
    writer = Writer(request, drafter, proposal_verifier)
    index = 0
    target_is_next = request.config.first_segment == "target"
    async with AsyncExitStack() as at_the_end:
        at_the_end.push_async_callback(drafter.cancel)
        at_the_end.enter_context(request.policy.request())
        while not transcript.ended:
            if transcript.speculation_ended is None and (reason := _why_end_speculation(transcript, drafter)):
                await drafter.cancel()
                yield drafter.end_speculation(transcript, reason)
            draft = None
            if not target_is_next and not transcript.target_finishes:
                draft = await drafter.next_segment(transcript)
            target_is_next = False
            if draft is None:  # nothing to verify: the target writes this segment
                async with aclosing(writer.segment(transcript)) as events:
                    async for event in events:
                        yield event
                continue
            if _is_left_to_target(request, transcript, verifier, draft):
                transcript.target_finishes = True
                continue
            text, start = transcript.decode(draft.token_ids), transcript.num_output_tokens
            yield SegmentDrafted(index, text, len(draft.token_ids))
            drafter.draft_ahead(transcript, draft)
            verdict = await _verify(request, transcript, verifier, draft, listener)
            drafter.report(accepted=verdict.accepted)
            yield SegmentDecided(index, transcript.record_verdict(draft, verdict, text), verdict.num_kept)
            index += 1
            for event in transcript.keep(draft, verdict):
                yield event
            target_is_next = _target_continues(transcript, verdict, start)
            if not verdict.accepted or transcript.ended or transcript.target_finishes:
                await drafter.cancel()
    for event in transcript.release_text():
        yield event
    lossy = request.config.speculate and verifier.lossy
    yield Finished(transcript.result(request.clock, lossy=lossy))


async def _verify(
    request: RequestContext,
    transcript: Transcript,
    verifier: Verifier,
    draft: Draft,
    listener: Listener | None,
) -> Verdict:
    """Asks the verifier; tells the listener, and the speculation policy what it cost."""
    with request.clock.phase("verify"):
        verdict = await verifier.verify(transcript, draft)
    if verdict.accepted:
        verdict = replace(verdict, num_kept=len(draft.token_ids))
    if listener is not None:
        listener.on_verdict(transcript, draft, verdict)
    request.report_segment(len(draft.token_ids), verdict.num_kept)
    return verdict


def _why_end_speculation(transcript: Transcript, drafter: Drafter) -> str:
    """Returns why the target should write alone from here on; "" if it should not."""
    if transcript.repetition.found:
        return "the output repeats itself"
    return "" if drafter.has_room(transcript) else DRAFT_IS_FULL


def _is_left_to_target(
    request: RequestContext, transcript: Transcript, verifier: Verifier, draft: Draft
) -> bool:
    """Whether a draft is dropped because it ends the thinking. A lossless verifier must see every draft."""
    if request.config.judge_think_end or not verifier.lossy or transcript.thinking_ended:
        return False
    return transcript.think_end(draft.token_ids) is not None


def _target_continues(transcript: Transcript, verdict: Verdict, start: int) -> bool:
    """Whether the target writes the rest of a segment, or all of it.

    Args:
        start: number of output tokens before the segment.
    """
    nothing_kept = transcript.num_output_tokens == start  # whatever the verdict says, the target has to write
    return nothing_kept or (
        not verdict.accepted and verdict.next_author == "target" and not transcript.at_segment_end
    )
