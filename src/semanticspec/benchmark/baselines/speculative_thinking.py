"""`speculative-thinking`: the draft writes, and the target takes over where the draft reflects or verifies.

Source: Speculative Thinking (Yang et al., arXiv 2504.12329, section 3) and its script `speculative_vllm.py` with the
settings of `config/1b_32b.yml` (github.com/uservan/speculative_thinking): words, lengths and the order of the rules are
theirs. Differences are listed in docs/reference/baselines.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from semanticspec.config import DecodingConfig, RuleConfig
from semanticspec.decoding.context import RequestContext
from semanticspec.decoding.draft import Draft
from semanticspec.decoding.pair import Pair
from semanticspec.decoding.transcript import Transcript
from semanticspec.engines.base import derived_seed
from semanticspec.records import Generation, Result, Stop, Verdict
from semanticspec.text.chat import Prompt

AFFIRMATION = ("yeah", "yes", "final answer", "confident")
REFLECTION = ("wait", "alternatively", "hold on", "another")
VERIFICATION = ("verify", "think again", "recap", "check")


@dataclass(frozen=True, slots=True)
class Takeovers:
    """When the target takes over, and for how long. Lengths are in tokens. Source: `config/1b_32b.yml`.

    Attributes:
        inspected_tokens: length of the draft's text after a blank line that is inspected, and of the target's
            replacement.
        verification_tokens: further tokens that the target writes if its replacement contains a verification word.
        negatives: number of negative replacements after which the target writes a recap; grows by `more_negatives`
            after each recap, up to `most_negatives`.
        recap_words: the start of a recap.
        recap_tokens: length of a recap; grows by `more_recap_tokens` after each, up to `most_recap_tokens`.
    """

    inspected_tokens: int = 20
    verification_tokens: int = 125
    negatives: int = 15
    more_negatives: int = 5
    most_negatives: int = 30
    recap_words: str = "Let me check whether there are some wrong steps:"
    recap_tokens: int = 125
    more_recap_tokens: int = 25
    most_recap_tokens: int = 200


class SpeculativeThinking:
    """The draft writes; the target replaces parts by the published rule. Lossy: most of the text is the draft's."""

    def __init__(self, pair: Pair, config: DecodingConfig, takeovers: Takeovers = Takeovers()) -> None:
        """Prepares the configuration; its rule and bonus token are ignored. Raises what `Pair.check` raises."""
        self.name = "speculative-thinking"
        self.lossy = True
        self._pair, self._takeovers = pair, takeovers
        rule = RuleConfig(name="always")
        self._config = replace(config, rule=rule, bonus_token=False, speculate=True, speculate_answer=True)
        pair.check(self._config)

    async def solve(self, prompt: str, seed: int) -> Result:
        """Answers a prompt; the same seed gives the same text. See `decode` for what it raises."""
        config = replace(self._config, seed=seed)
        return await _ThinkingRequest(self._pair, config, prompt, self._takeovers).result()


def tone(text: str) -> int:
    """Returns 1 if most words are affirmations, -1 if not (also for a tie), 0 if there are none of either kind.

    Counts parts of words too ("eyes" contains "yes"), as the original does.
    """
    lower = text.lower()
    positive = sum(lower.count(word) for word in AFFIRMATION)
    negative = sum(lower.count(word) for word in (*REFLECTION, *VERIFICATION))
    if positive == negative == 0:
        return 0
    return 1 if positive > negative else -1


class _ThinkingRequest:
    """One request. After each blank line, the start of the draft's next text is inspected and perhaps replaced."""

    def __init__(self, pair: Pair, config: DecodingConfig, prompt: Prompt, takeovers: Takeovers) -> None:
        self._pair, self._config, self._takeovers = pair, config, takeovers
        self._transcript = Transcript(pair, prompt, config)
        self._request = RequestContext(pair, config)
        self._clock = self._request.clock
        segmenter = pair.target.segmenter
        self._blank_line = replace(segmenter.stop, ids=segmenter.boundary_ids)

    async def result(self) -> Result:
        """Runs the published loop; `tone` decides."""
        takeovers, transcript = self._takeovers, self._transcript
        negatives, recap_after, recap_tokens = 0, takeovers.negatives, takeovers.recap_tokens
        at_blank_line = False
        while not transcript.ended:
            if self._draft_room() < 1:
                await self._target(transcript.room)
                at_blank_line = False
            elif not at_blank_line:
                await self._draft_up_to_blank_line()
                at_blank_line = self._at_blank_line()
            elif negatives >= recap_after:
                await self._recap(recap_tokens)
                at_blank_line, negatives = False, 0
                recap_tokens = min(recap_tokens + takeovers.more_recap_tokens, takeovers.most_recap_tokens)
                recap_after = min(recap_after + takeovers.more_negatives, takeovers.most_negatives)
            else:
                inspected = await self._draft(
                    takeovers.inspected_tokens, self._pair.draft.segmenter.text_stop
                )
                if tone(self._pair.draft.vocabulary.decode(inspected.token_ids)) == 0:
                    self._keep_neutral(inspected)
                    at_blank_line = self._at_blank_line()
                else:
                    negatives += await self._replace(inspected)
                    at_blank_line = False
        return transcript.result(self._clock, lossy=True)

    async def _replace(self, inspected: Generation) -> bool:
        """Lets the target replace inspected text, and write more if it verifies; returns if its tone is negative."""
        takeovers, transcript = self._takeovers, self._transcript
        ids = tuple(self._pair.to_target.ids(inspected.token_ids))
        transcript.record_verdict(
            Draft(inspected, ids), Verdict(False, 0, "reflects"), transcript.decode(ids)
        )
        before = len(transcript.text)
        await self._target(takeovers.inspected_tokens)
        written = transcript.text[before:]
        if not transcript.ended and any(word in written.lower() for word in VERIFICATION):
            await self._target(takeovers.verification_tokens)
        return tone(written) < 0

    async def _draft_up_to_blank_line(self) -> None:
        """Lets the draft write, without inspection, up to the next blank line, `</think>` or the end of the text."""
        generation = await self._draft(self._config.max_segment_tokens, self._pair.draft.segmenter.stop)
        self._keep_draft(generation, verdict="")

    async def _draft(self, max_tokens: int, stop: Stop) -> Generation:
        with self._clock.phase("draft"):
            (generation,) = await self._pair.draft.engine.generate(
                self._transcript.draft_ids,
                max_tokens=min(max_tokens, self._transcript.room, self._draft_room()),
                stop=self._pair.draft_stop(stop),
                sampling=self._config.sampling,
                seed=derived_seed(self._config.seed, "draft", self._transcript.num_rejected),
                request_id=self._request.request_id,
            )
        ids = tuple(self._pair.to_target.ids(generation.token_ids))
        self._transcript.count_draft(Draft(generation, ids))
        return generation

    def _keep_neutral(self, inspected: Generation) -> None:
        """Keeps inspected text up to its first blank line, after which the draft is inspected again."""
        first = self._pair.draft.segmenter.split(inspected.token_ids)[0]
        self._keep_draft(replace(inspected, token_ids=tuple(first)), verdict="neutral")

    def _keep_draft(self, generation: Generation, *, verdict: str) -> None:
        """Appends the draft's tokens; `verdict` is the note of an inspection, or empty if there was none."""
        transcript = self._transcript
        ids = tuple(self._pair.to_target.ids(generation.token_ids)[: transcript.room])
        if not ids:  # the draft wrote only a token that the target's vocabulary lacks
            transcript.target_finishes = True
            return
        if verdict:
            accepted = Verdict(True, len(ids), verdict)
            transcript.record_verdict(Draft(generation, ids), accepted, transcript.decode(ids))
        events = transcript.append_draft(ids)
        if not verdict:
            transcript.record("draft", events)

    async def _recap(self, num_tokens: int) -> None:
        """Appends the first words of a recap, which the target then continues."""
        vocabulary = self._pair.target.vocabulary
        self._keep_target(vocabulary.encode(self._takeovers.recap_words)[: self._transcript.room])
        if not self._transcript.ended:
            await self._target(num_tokens)

    async def _target(self, num_tokens: int) -> None:
        """Lets the target write up to `num_tokens`, across blank lines."""
        model = self._pair.target
        with self._clock.phase("rewrite"):
            (generation,) = await model.engine.generate(
                self._transcript.target_ids,
                max_tokens=min(num_tokens, self._transcript.room),
                stop=model.segmenter.text_stop,
                sampling=self._config.sampling,
                seed=self._request.target_seed,
                request_id=self._request.request_id,
            )
        self._keep_target(generation.token_ids)

    def _keep_target(self, ids: Sequence[int]) -> None:
        self._transcript.record("target", self._transcript.append_target(ids))

    def _at_blank_line(self) -> bool:
        ids = self._transcript.output_ids
        if not ids or self._transcript.ended:
            return False
        previous = ids[-2] if len(ids) > 1 else -1
        return self._blank_line.ends(previous, ids[-1])

    def _draft_room(self) -> int:
        """Returns how many tokens the draft can still write; 0 if the target writes the rest."""
        if self._transcript.target_finishes:
            return 0
        return self._pair.draft.engine.info.max_context_tokens - len(self._transcript.draft_ids)
