"""The decoding loop: draft a segment, let the target read it, keep it or have it rewritten.

One request is one asynchronous generator of events; it serves the command line, the server and the benchmark
alike. Source: SemanticSpec (arXiv 2602.03708), algorithm 1; deviations are options of `DecodingConfig`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import replace
from random import Random
from typing import Any, TypeVar

from semanticspec.config import DecodingConfig
from semanticspec.decoding.acceptance import Evidence, decide, takes_shortcut
from semanticspec.decoding.drafter import Draft, Drafter
from semanticspec.decoding.pair import Pair
from semanticspec.decoding.transcript import Clock, Transcript
from semanticspec.decoding.writer import TargetWriter
from semanticspec.engines.base import derived_seed
from semanticspec.errors import PromptError
from semanticspec.records import (
    Event,
    Finished,
    Result,
    Sampling,
    Score,
    Segment,
    SegmentDecided,
    SegmentDrafted,
    Stats,
    Verdict,
)
from semanticspec.text.chat import Prompt

T = TypeVar("T")


def decode(
    pair: Pair, prompt: Prompt, config: DecodingConfig | None = None, *, request_id: str | None = None
) -> AsyncGenerator[Event, None]:
    """Answers a prompt; yields what happens, `Finished` last.

    The configuration and the prompt are checked here, before the first event. Close the generator
    (`contextlib.aclosing`) to stop early; the pair stays usable.

    Args:
        prompt: a user's text, or chat messages (`role`, `content`).
        config: None = the defaults, with the optimizations of `Pair.with_default_optimizations`.
        request_id: a hint for the engines' caches; made up if not given.

    Raises:
        PromptError: the prompt is empty or leaves no room for an answer.
        SemanticSpecError: the pair cannot run this configuration; see `Pair.check`.
    """
    config = config or pair.with_default_optimizations(DecodingConfig())
    pair.check(config)
    return Request(pair, config, prompt, request_id).events()


async def generate_async(pair: Pair, prompt: Prompt, config: DecodingConfig | None = None) -> Result:
    """The result of `decode`, without the events on the way."""
    return await result_of(decode(pair, prompt, config))


async def result_of(events: AsyncGenerator[Event, None]) -> Result:
    """Runs a request to its end."""
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Finished):
                return event.result
    raise AssertionError("a request ends with Finished")


def generate(pair: Pair, prompt: Prompt, config: DecodingConfig | None = None) -> Result:
    """Answers a prompt and returns the result. Works inside a running event loop too (a notebook)."""
    return run_blocking(generate_async(pair, prompt, config))


def run_blocking(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end, in a thread of its own if this one already runs an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    outcome: list[T] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            outcome.append(asyncio.run(coroutine))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=work, name="semanticspec-generate")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


class Request:
    """One request. `events` is the loop; the methods below it are its steps.

    Use `decode`. The benchmark's foreign methods (`benchmark/specreason.py`) override single steps, so that all
    else is the same.
    """

    def __init__(
        self, pair: Pair, config: DecodingConfig, prompt: Prompt, request_id: str | None = None
    ) -> None:
        self.pair, self.config = pair, config
        self.transcript = Transcript(pair, prompt, with_draft=config.speculate)
        self.clock = Clock()
        self.request_id = request_id or f"request-{id(self):x}"
        self.random = Random(derived_seed(config.seed, "accept"))
        self.target_seed = derived_seed(config.seed, "target")
        self.pacing = pair.pacing(config)
        self.drafter = Drafter(pair, config, self.pacing, self.request_id)
        self.writer = TargetWriter(pair, config, self.pacing, self.random, self.request_id)
        self.segments: list[Segment] = []
        self.num_drafts = self.num_rejected = self.drafted_tokens = 0
        self.finish_reason: str | None = None
        self.target_next = config.first_segment == "target"
        self.target_finishes = not config.speculate
        self.limit = self._token_limit()
        self.target_has_read = False  # the prompt

    async def events(self) -> AsyncGenerator[Event, None]:
        """The request from its first event to `Finished`."""
        try:
            async with aclosing(self._loop()) as events:
                async for event in events:
                    yield event
        finally:
            await self.drafter.drop()

    async def _loop(self) -> AsyncGenerator[Event, None]:
        """The algorithm: see the numbered path in docs/architecture.md."""
        while self.finish_reason is None:
            waits = not self.drafter.has_begun and not self.pacing.segments_pay()
            if self.target_next or self.target_finishes or waits:
                self.target_next = False
                events = self._target_writes(to_the_end=self.target_finishes)
            elif drafts := await self._next_drafts():
                events = self._look_at(drafts)
            else:
                self.target_next = True  # nothing to judge: the target writes this segment
                continue
            async with aclosing(events):
                async for event in events:
                    yield event
        yield Finished(self._result())

    async def _look_at(self, drafts: Sequence[Draft]) -> AsyncGenerator[Event, None]:
        """Judges drafted segments in turn until one is accepted; of the last, or the only one, a beginning may stay."""
        scores: list[Score] = []
        for place, draft in enumerate(drafts):
            self.num_drafts += 1
            yield SegmentDrafted(self.num_drafts - 1, draft.text, len(draft.token_ids))
            if self._left_to_target(draft):
                self.target_finishes = True
                break
            if not scores:
                self._draft_ahead(draft)
                scores = await self._verify(drafts)
            verdict, segment = self._judge(draft, scores[place])
            if not verdict.accepted and place < len(drafts) - 1:
                await self.drafter.drop()
                yield SegmentDecided(self.num_drafts - 1, segment, 0)
                continue
            if not verdict.accepted and self.config.accepts_partially:
                verdict = await self._partial_acceptance(draft, verdict, scores[place])
            self._note_costs(draft, verdict)
            yield SegmentDecided(self.num_drafts - 1, segment, verdict.num_kept)
            for event in self._keep(draft, verdict, scores[place]):
                yield event
            self.target_next = self._left_unfinished(verdict)
            if not verdict.accepted or self.finish_reason is not None or self.target_finishes:
                await self.drafter.drop()
            break

    async def _next_drafts(self) -> list[Draft]:
        """The next drafted segments, already begun or not; none if there is nothing to judge."""
        with self.clock.phase("draft"):
            drafts = await self.drafter.next_segments(
                self.transcript.draft_ids, self._room(), self.num_rejected
            )
        self.drafted_tokens += sum(len(draft.token_ids) for draft in drafts)
        return drafts

    def _draft_ahead(self, draft: Draft) -> None:
        """Begins the segment after one that is still to be judged, as if it were accepted."""
        if not self.config.overlap or self._adds_token:  # the token that follows is not known yet
            return
        target, left = self.pair.target, self._room() - len(draft.token_ids)
        in_answer = self.transcript.thinking_ended or self.config.speculate_answer
        to_answer = not in_answer and target.segmenter.think_end(draft.token_ids) is not None
        if left < 1 or to_answer or draft.token_ids[-1] in target.vocabulary.end_ids:
            return
        context = self.transcript.draft_context(draft.token_ids, draft.generation.token_ids)
        self.drafter.begin(context, left, self.num_rejected)

    def _left_to_target(self, draft: Draft) -> bool:
        """Whether a draft ends the thinking and the configuration has the target do that itself."""
        if self.config.judge_think_end or self.transcript.thinking_ended:
            return False
        return self.pair.target.segmenter.think_end(draft.token_ids) is not None

    async def _verify(self, drafts: Sequence[Draft]) -> list[Score]:
        """The target reads the segments in one pass."""
        config, sampling = self.config, None
        distributions = (
            config.rule.needs_distributions or config.accepts_partially
        ) and not config.bonus_token
        if config.bonus_token:
            sampling = Sampling(config.bonus_temperature, config.sampling.top_p)
        elif distributions:
            sampling = config.sampling
        with self.clock.phase("verify"):
            return await self.pair.target.engine.score(
                self.transcript.target_ids,
                [draft.token_ids for draft in drafts],
                sampling=sampling,
                seed=self.target_seed,
                distributions=distributions,
                request_id=self.request_id,
            )

    def _judge(self, draft: Draft, score: Score) -> tuple[Verdict, Segment]:
        """Asks the probes if the rule needs them, then the rule."""
        evidence = Evidence(draft.token_ids, score.ranks)
        if self.config.rule.needs_distributions:
            rows = draft.generation.distributions
            assert rows is not None
            evidence = replace(
                evidence,
                target_distributions=score.distributions,
                draft_distributions=self.pair.to_target.distributions(rows),
            )
        if self.config.rule.needs_probes and not takes_shortcut(self.config.rule, evidence):
            assert self.pair.target_probe is not None
            assert self.pair.draft_probe is not None
            with self.clock.phase("probe"):
                p_target = self.pair.target_probe.estimate(score)
                p_draft = self.pair.draft_probe.estimate(draft.generation)
            evidence = replace(evidence, p_target=p_target, p_draft=p_draft)
        verdict = decide(self.config.rule, evidence, self.random)
        return verdict, self._record(draft, verdict, evidence)

    def _record(self, draft: Draft, verdict: Verdict, evidence: Evidence) -> Segment:
        """Notes a verdict among the request's segments."""
        segment = Segment(
            author="draft",
            text=draft.text,
            num_tokens=len(draft.token_ids),
            p_target=evidence.p_target,
            p_draft=evidence.p_draft,
            accepted=verdict.accepted,
            reason=verdict.reason,
        )
        self.segments.append(segment)
        self.num_rejected += not verdict.accepted
        return segment

    async def _partial_acceptance(self, draft: Draft, verdict: Verdict, score: Score) -> Verdict:
        """A rejection that keeps what token-level speculation would have: all of it at the most."""
        with self.clock.phase("verify"):
            if score.distributions is None:  # read for a bonus token, under other sampling settings
                score = await self.writer.read(self.transcript, draft.token_ids)
            checked = self.writer.check(draft.token_ids, draft.generation, score)
        replacement_id = None if checked.accepted else checked.replacement_id
        return replace(verdict, num_kept=checked.num_kept, replacement_id=replacement_id)

    def _note_costs(self, draft: Draft, verdict: Verdict) -> None:
        """Tells the pacing what a drafted segment took and gave, and the drafter how it fared."""
        self.drafter.note(whole=verdict.accepted)
        self.pacing.note_segment(
            len(draft.token_ids),
            verdict.num_kept,
            draft_s=self.clock.lap("draft"),
            verify_s=self.clock.lap("verify", "probe"),
            first_pass=not self.target_has_read,
        )
        self.target_has_read = True

    def _left_unfinished(self, verdict: Verdict) -> bool:
        """Whether the target has to write on after a verdict: a rejected segment, or the rest of one."""
        if verdict.accepted or self.config.rule.name == "token":
            return False
        if verdict.num_kept == 0 and verdict.replacement_id is None:
            return True
        before, last = self.transcript.target_ids[-2:]
        return not self.pair.target.segmenter.stop.ends(before, last)

    def _keep(self, draft: Draft, verdict: Verdict, score: Score) -> list[Event]:
        """Appends what a verdict keeps, then its replacement token or the bonus token."""
        events: list[Event] = []
        if verdict.accepted:
            events += self.transcript.append_draft(draft.token_ids, draft.generation.token_ids)
        elif verdict.num_kept:
            kept = draft.token_ids[: verdict.num_kept]
            events += self.transcript.append_draft(kept, None)
            self.segments.append(Segment("draft", self.pair.target.vocabulary.decode(kept), len(kept)))
        events += self._after_append()
        extra = verdict.replacement_id
        if extra is None and verdict.accepted and self._adds_token:
            extra = score.next_token_id
        if extra is not None and self.finish_reason is None and not self.target_finishes:
            events += self.transcript.append_target([extra])
            self.segments.append(Segment("target", self.pair.target.vocabulary.decode([extra]), 1))
            events += self._after_append()
        return events

    async def _target_writes(self, *, to_the_end: bool) -> AsyncGenerator[Event, None]:
        """The target writes one segment, or all that is left."""
        model = self.pair.target
        max_tokens = self._room()
        if to_the_end and self.config.speculate and self.config.max_answer_tokens is not None:
            max_tokens = min(max_tokens, self.config.max_answer_tokens)
        before = self.transcript.num_output_tokens
        async with aclosing(self.writer.write(self.transcript, max_tokens, to_the_end=to_the_end)) as pieces:
            while True:
                with self.clock.phase("rewrite"):
                    piece = await anext(pieces, None)
                if piece is None:
                    break
                ids, proposed = piece
                note = self.pacing.note_tokens if proposed else self.pacing.note_written
                seconds = self.clock.lap("rewrite")
                if self.target_has_read:  # else it has read the prompt just now
                    note(len(ids), seconds)
                self.target_has_read = True
                for event in self.transcript.append_target(ids):
                    yield event
        new_ids = self.transcript.output_ids[before:]
        text, proposals = model.vocabulary.decode(new_ids), self.writer.take_proposals()
        self.segments.append(Segment("target", text, len(new_ids), proposals=proposals))
        for event in self._after_append():
            yield event
        if to_the_end and self.finish_reason is None:
            self.finish_reason = "length"

    def _after_append(self) -> list[Event]:
        """Notices the end of thinking, of the text and of the room for it."""
        events: list[Event] = self.transcript.notice_thinking_end()
        if events and not self.config.speculate_answer:
            self.target_finishes = True
        if self.transcript.ended:
            self.finish_reason = "stop"
        elif self._room() < 1:
            self.finish_reason = "length"
        return events

    def _token_limit(self) -> int:
        """How many tokens the output may have: the configured limit, or what the target's context leaves."""
        roles = [("target", self.pair.target, self.transcript.prompt_ids)]
        if self.config.speculate:
            roles.append(("draft", self.pair.draft, self.transcript.draft_ids))
        for role, model, prompt_ids in roles:
            context = model.engine.info.max_context_tokens
            if len(prompt_ids) >= context:
                raise PromptError(
                    f"the prompt has {len(prompt_ids)} tokens and the {role}'s context holds {context}, answer "
                    "included; shorten the prompt"
                )
        context = self.pair.target.engine.info.max_context_tokens
        return min(self.config.max_new_tokens, context - len(self.transcript.prompt_ids))

    @property
    def _adds_token(self) -> bool:
        """Whether the target adds a token of its own to what is accepted, which comes with its reading."""
        return self.config.bonus_token or self.config.drafts_proposals

    def _room(self) -> int:
        return self.limit - self.transcript.num_output_tokens

    def stats(self) -> Stats:
        """Counts and seconds so far; also of a request that was closed early."""
        accepted = [segment.accepted for segment in self.segments]
        counts = Stats(
            prompt_tokens=len(self.transcript.prompt_ids),
            num_tokens=self.transcript.num_output_tokens,
            draft_tokens=self.transcript.draft_tokens,
            drafted_tokens=self.drafted_tokens,
            segments_accepted=accepted.count(True),
            segments_rejected=accepted.count(False),
        )
        return self.clock.stats(counts)

    def _result(self) -> Result:
        transcript = self.transcript
        assert self.finish_reason in ("stop", "length")
        reasoning, answer = transcript.split_answer()
        return Result(
            text=transcript.text,
            token_ids=tuple(transcript.output_ids),
            segments=tuple(self.segments),
            stats=self.stats(),
            finish_reason=self.finish_reason,  # type: ignore[arg-type]
            lossy=self.config.lossy,
            reasoning=reasoning,
            answer=answer,
        )


def segment_texts(segments: Sequence[Segment]) -> str:
    """The output's text from its segments: all but the rejected ones."""
    return "".join(segment.text for segment in segments if segment.accepted is not False)
