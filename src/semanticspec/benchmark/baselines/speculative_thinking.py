"""`speculative-thinking`: the draft writes, and the target takes over where the draft reflects.

Source: Speculative Thinking (Yang et al., arXiv 2504.12329, section 3) and its script `speculative_vllm.py` with the
settings of `config/1b_32b.yml` (github.com/uservan/speculative_thinking): words, lengths and the order of the rules are
theirs. What differs is in docs/baselines.md.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace

from semanticspec.config import DecodingConfig, RuleConfig
from semanticspec.decoding.loop import Request, result_of
from semanticspec.decoding.pair import Pair
from semanticspec.engines.base import derived_seed
from semanticspec.records import Event, Finished, Generation, Result, Segment, Stop

AFFIRMATION = ("yeah", "yes", "final answer", "confident")
REFLECTION = ("wait", "alternatively", "hold on", "another")
VERIFICATION = ("verify", "think again", "recap", "check")


@dataclass(frozen=True, slots=True)
class Takeovers:
    """How much the target writes, and when. All lengths in tokens. Source of the numbers: `config/1b_32b.yml`.

    Attributes:
        probe_tokens: what the draft writes after a blank line to be looked at, and the target in its place.
        verification_tokens: what the target adds where its words verify something.
        negatives: so many reflections of the target later it is made to recap; `more_negatives` are added after each
            recap, up to `most_negatives`.
        recap_words: what a recap begins with.
        recap_tokens: length of a recap; `more_recap_tokens` are added after each, up to `most_recap_tokens`.
    """

    probe_tokens: int = 20
    verification_tokens: int = 125
    negatives: int = 15
    more_negatives: int = 5
    most_negatives: int = 30
    recap_words: str = "Let me check whether there are some wrong steps:"
    recap_tokens: int = 125
    more_recap_tokens: int = 25
    most_recap_tokens: int = 200


class SpeculativeThinking:
    """The draft's text with the target's at the places of the published rule. Lossy: mostly the draft's."""

    def __init__(self, pair: Pair, config: DecodingConfig, takeovers: Takeovers = Takeovers()) -> None:
        """The configuration's rule is put aside. Raises what `Pair.check` raises."""
        self.name = "speculative-thinking"
        self.lossy = True
        self._pair, self._takeovers = pair, takeovers
        rule = RuleConfig(name="always")
        self._config = replace(config, rule=rule, bonus_token=False, speculate=True, speculate_answer=True)
        pair.check(self._config)

    async def solve(self, prompt: str, seed: int) -> Result:
        """Answers a prompt; the same seed gives the same text. See `decode` for what it raises."""
        request = _WatchedDraft(self._pair, replace(self._config, seed=seed), prompt)
        request.takeovers = self._takeovers
        return await result_of(request.events())


def tone(text: str) -> int:
    """1 where affirmation prevails, -1 for reflection and verification (and for a tie), 0 without such words.

    Counts words as parts of others too ("eyes" holds a "yes"), as the original does.
    """
    lower = text.lower()
    positive = sum(lower.count(word) for word in AFFIRMATION)
    negative = sum(lower.count(word) for word in (*REFLECTION, *VERIFICATION))
    if positive == negative == 0:
        return 0
    return 1 if positive > negative else -1


class _WatchedDraft(Request):
    """The draft writes up to a blank line; there it is looked at, and perhaps replaced."""

    takeovers: Takeovers

    async def events(self) -> AsyncGenerator[Event, None]:
        """The published loop. See `tone` for what decides."""
        takeovers = self.takeovers
        negatives, recap_after, recap_tokens = 0, takeovers.negatives, takeovers.recap_tokens
        at_blank_line = False
        while self.finish_reason is None:
            events: list[Event] = []
            if self._draft_room() < 1:
                events += await self._target(self._room())
                at_blank_line = False
            elif not at_blank_line:
                events += await self._draft_up_to_blank_line()
                at_blank_line = self._at_blank_line()
            elif negatives >= recap_after:
                events += await self._recap(recap_tokens)
                at_blank_line, negatives = False, 0
                recap_tokens = min(recap_tokens + takeovers.more_recap_tokens, takeovers.most_recap_tokens)
                recap_after = min(recap_after + takeovers.more_negatives, takeovers.most_negatives)
            else:
                probe = await self._draft(takeovers.probe_tokens, self.pair.draft.segmenter.text_stop)
                if tone(self.pair.draft.vocabulary.decode(probe.token_ids)) == 0:
                    events += self._keep_neutral(probe)
                    at_blank_line = self._at_blank_line()
                else:
                    self._note_replaced(probe)
                    before = len(self.transcript.text)
                    events += await self._target(takeovers.probe_tokens)
                    written = self.transcript.text[before:]
                    negatives += tone(written) < 0
                    if self.finish_reason is None and any(word in written.lower() for word in VERIFICATION):
                        events += await self._target(takeovers.verification_tokens)
                    at_blank_line = False
            for event in events:
                yield event
        yield Finished(self._result())

    async def _draft_up_to_blank_line(self) -> list[Event]:
        """The draft writes unwatched: up to the next blank line, `</think>` or the end of the text."""
        generation = await self._draft(self.config.max_segment_tokens, self.pair.draft.segmenter.stop)
        return self._keep_draft(generation, accepted=None)

    async def _draft(self, max_tokens: int, stop: Stop) -> Generation:
        with self.clock.phase("draft"):
            (generation,) = await self.pair.draft.engine.generate(
                self.transcript.draft_ids,
                max_tokens=min(max_tokens, self._room(), self._draft_room()),
                stop=replace(stop, ids=stop.ids | self.pair.to_target.unmapped),
                sampling=self.config.sampling,
                seed=derived_seed(self.config.seed, "draft", self.num_rejected),
                request_id=self.request_id,
            )
        self.drafted_tokens += len(self.pair.to_target.ids(generation.token_ids))
        return generation

    def _keep_neutral(self, probe: Generation) -> list[Event]:
        """Keeps what was looked at, up to its first blank line: there the draft is looked at again."""
        first = self.pair.draft.segmenter.split(probe.token_ids)[0]
        return self._keep_draft(replace(probe, token_ids=tuple(first)), accepted=True)

    def _keep_draft(self, generation: Generation, accepted: bool | None) -> list[Event]:
        ids = self.pair.to_target.ids(generation.token_ids)[: self._room()]
        if not ids:  # the draft has only a token that the target lacks
            self.target_finishes = True
            return []
        text = self.pair.target.vocabulary.decode(ids)
        self.segments.append(
            Segment("draft", text, len(ids), accepted=accepted, reason="neutral" if accepted else "")
        )
        return self.transcript.append_draft(ids, generation.token_ids) + self._after_append()

    def _note_replaced(self, probe: Generation) -> None:
        ids = self.pair.to_target.ids(probe.token_ids)
        text = self.pair.target.vocabulary.decode(ids)
        self.segments.append(Segment("draft", text, len(ids), accepted=False, reason="reflects"))
        self.num_rejected += 1

    async def _recap(self, num_tokens: int) -> list[Event]:
        """Puts the words of a recap into the text and has the target go on from there."""
        words = self.pair.target.vocabulary.encode(self.takeovers.recap_words)[: self._room()]
        events = self._keep_target(words)
        return events if self.finish_reason else events + await self._target(num_tokens)

    async def _target(self, num_tokens: int) -> list[Event]:
        """The target writes so many tokens, across blank lines."""
        model = self.pair.target
        with self.clock.phase("rewrite"):
            (generation,) = await model.engine.generate(
                self.transcript.target_ids,
                max_tokens=min(num_tokens, self._room()),
                stop=model.segmenter.text_stop,
                sampling=self.config.sampling,
                seed=self.target_seed,
                request_id=self.request_id,
            )
        return self._keep_target(generation.token_ids)

    def _keep_target(self, ids: Sequence[int]) -> list[Event]:
        self.segments.append(Segment("target", self.pair.target.vocabulary.decode(ids), len(ids)))
        return self.transcript.append_target(ids) + self._after_append()

    def _at_blank_line(self) -> bool:
        segmenter, ids = self.pair.target.segmenter, self.transcript.output_ids
        if len(ids) < 1 or self.finish_reason is not None:
            return False
        pair_end = (
            len(ids) > 1 and ids[-1] in segmenter.stop.pair_second and ids[-2] in segmenter.stop.pair_first
        )
        return ids[-1] in segmenter.boundary_ids or pair_end

    def _draft_room(self) -> int:
        """How many tokens the draft can still write; 0 leaves the rest to the target."""
        if self.target_finishes:
            return 0
        return self.pair.draft.engine.info.max_context_tokens - len(self.transcript.draft_ids)
