"""The decoding loop: draft a segment, let the target verify it, keep it or have the target rewrite it.

Source: SemanticSpec (arXiv 2602.03708), algorithm 1; deviations are options of `DecodingConfig`. The loop is open
where methods differ: a `Verifier` decides what is kept, a `Listener` may watch. See docs/architecture.md.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

from semanticspec.decoding.context import RequestContext
from semanticspec.decoding.draft import Draft
from semanticspec.decoding.drafter import Drafter
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
    config = request.config
    drafter = Drafter(request)
    writer = Writer(request, drafter, proposal_verifier)
    num_drafts = 0
    target_is_next = config.first_segment == "target"
    try:
        while not transcript.ended:
            draft = None
            if not target_is_next and not transcript.target_finishes:
                draft = await drafter.next_segment(transcript)
            target_is_next = False
            if draft is None:  # nothing to verify: the target writes this segment
                async with aclosing(writer.segment(transcript)) as events:
                    async for event in events:
                        yield event
                continue
            text = transcript.decode(draft.token_ids)
            yield SegmentDrafted(num_drafts, text, len(draft.token_ids))
            num_drafts += 1
            if _target_ends_thinking(request, transcript, draft):
                transcript.target_finishes = True
                continue
            drafter.draft_ahead(transcript, draft)
            with request.clock.phase("verify"):
                verdict = await verifier.verify(transcript, draft)
            if listener is not None:
                listener.on_verdict(transcript, draft, verdict)
            request.report_segment(len(draft.token_ids), verdict.num_kept)
            drafter.report(accepted=verdict.accepted)
            segment = transcript.record_verdict(draft, verdict, text)
            yield SegmentDecided(num_drafts - 1, segment, verdict.num_kept)
            for event in transcript.keep(draft, verdict):
                yield event
            target_is_next = _target_continues(transcript, verdict)
            if not verdict.accepted or transcript.ended or transcript.target_finishes:
                await drafter.cancel()
    finally:
        await drafter.cancel()
    yield Finished(transcript.result(request.clock, lossy=config.lossy))


def _target_ends_thinking(request: RequestContext, transcript: Transcript, draft: Draft) -> bool:
    """Whether a draft ends the thinking and the configuration leaves that to the target."""
    config = request.config
    # A lossless rule must verify every draft: to drop one for its content would bias the output.
    if config.judge_think_end or not config.lossy or transcript.thinking_ended:
        return False
    return request.pair.target.segmenter.think_end(draft.token_ids) is not None


def _target_continues(transcript: Transcript, verdict: Verdict) -> bool:
    """Whether the target writes the rest of a segment, or all of a rejected one."""
    if verdict.accepted or verdict.next_author == "draft":
        return False
    kept_something = verdict.num_kept > 0 or verdict.next_id is not None
    return not (kept_something and transcript.at_segment_end)
