"""Frozen records: what engines return, what the loop decides, and the events of a request.

Importing this module does not import torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from semanticspec.distributions import Distributions

Author = Literal["draft", "target"]
StopReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are sampled from a model.

    Attributes:
        temperature: 0 means greedy. Range [0, 10]. Source: 0.6 in the paper and in the R1 and QwQ model cards.
        top_p: probability mass kept in nucleus sampling, in (0, 1]. Source: 0.95, as above.
    """

    temperature: float = 0.6
    top_p: float = 0.95


GREEDY = Sampling(temperature=0.0, top_p=1.0)


@dataclass(frozen=True, slots=True)
class Stop:
    """Where a generation ends. The token that ends it is kept.

    Attributes:
        ids: a token with one of these ids ends the generation.
        pair_first, pair_second: a token of `pair_second` directly after a token of `pair_first` (generated or
            context) also ends it, for tokenizers that write a blank line as two tokens.
        min_likelihood: the generation also ends after the token at which the product of its tokens' probabilities
            (temperature 1, no truncation) falls below this; 0 = off. Engines without distributions ignore it.
    """

    ids: frozenset[int] = frozenset()
    pair_first: frozenset[int] = frozenset()
    pair_second: frozenset[int] = frozenset()
    min_likelihood: float = 0.0

    def is_unlikely(self, logprob: float) -> bool:
        """Whether a generation with this log-probability (the sum over its tokens) has become too unlikely."""
        return logprob < math.log(self.min_likelihood) if self.min_likelihood > 0 else False

    def ends(self, previous_id: int, token_id: int) -> bool:
        """Whether `token_id`, coming after `previous_id`, is the last token."""
        return token_id in self.ids or (token_id in self.pair_second and previous_id in self.pair_first)


@dataclass(frozen=True, slots=True)
class Reading:
    """What generating and scoring a continuation have in common.

    Predicting positions are the positions whose states predict the continuation's tokens: from the last context
    token to the last but one token of the continuation.

    Attributes:
        logprobs: log-probability of each token of the continuation (nats, temperature 1, no truncation).
        pooled_state: hidden states at the predicting positions, float32, on the engine's device: their mean or the
            last one, `[hidden]`, or all of them, `[tokens, hidden]`, see `EngineInfo.pooling`. Layer and norm: see
            `EngineInfo.layer` and `EngineInfo.norm_state`.
        distributions: under the sampling settings, on the CPU: of each token of a generation; for a score, the last
            of tokens + 1 predicts the next token. None unless requested.
    """

    logprobs: tuple[float, ...]
    pooled_state: Tensor
    distributions: Distributions | None = None


@dataclass(frozen=True, slots=True)
class Generation(Reading):
    """One sampled continuation."""

    token_ids: tuple[int, ...] = ()
    stop_reason: StopReason = "length"


@dataclass(frozen=True, slots=True)
class SegmentText:
    """The text of a segment and what comes before it.

    Attributes:
        prompt: what the user asked, without the chat template.
        before: the output before the segment.
        text: the segment.
    """

    prompt: str
    before: str
    text: str


@dataclass(frozen=True, slots=True)
class Score(Reading):
    """How probable a model finds a given continuation.

    Attributes:
        ranks: rank of each token in the model's distribution at its position; 1 = most probable. Ranks, argmax ids,
            entropies and margins may be empty unless requested (`signals`).
        argmax_ids: the most probable token at each position.
        entropies: entropy of the model's distribution at each position (nats, temperature 1); empty if the engine
            does not report it.
        next_token_id: a token sampled after the last one; None unless sampling settings were given.
        margins: log-probability of the most probable token minus that of the second, at each position (nats,
            temperature 1); empty if the engine does not report it.
    """

    ranks: tuple[int, ...] = ()
    argmax_ids: tuple[int, ...] = ()
    entropies: tuple[float, ...] = ()
    next_token_id: int | None = None
    margins: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verifier decided on a draft. If nothing is kept and no token follows, the target writes the segment.

    Attributes:
        accepted: the whole draft is kept.
        num_kept: how many of its tokens (in the target's tokens) are kept; all of them if accepted.
        reason: one word for people: "semantic", "shortcut", "top-k", "token", "random", "always", "never".
        next_id: token of the target that follows what is kept; None if there is none.
        next_author: who writes on after a rejection: the target (the rest of the segment), or the draft.
        p_target, p_draft: semantic probabilities, None where no probe was asked.
    """

    accepted: bool
    num_kept: int
    reason: str
    next_id: int | None = None
    next_author: Author = "target"
    p_target: float | None = None
    p_draft: float | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """One piece of a request, in order: a drafted segment and its verdict, or text that was written.

    Attributes:
        author: "draft" or "target".
        num_tokens: length in the target's tokens.
        p_target, p_draft: semantic probabilities; None where no probe was asked.
        accepted: True for a drafted segment that was kept whole; False for one that was rejected (its `text` is
            not in the output); None for a kept prefix and for text of the target.
        reason: which rule decided, see `Verdict.reason`; empty for text of the target.
        proposals: for text written by token-level speculation, a pair per proposal: tokens proposed, tokens kept.
            (0, 0) where the target decoded a token by itself.
    """

    author: Author
    text: str
    num_tokens: int
    p_target: float | None = None
    p_draft: float | None = None
    accepted: bool | None = None
    reason: str = ""
    proposals: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts and seconds of one request. Seconds are wall-clock; phases do not overlap.

    Attributes:
        num_tokens: output tokens, counted in the target's tokenization.
        draft_tokens: output tokens that the draft wrote.
        drafted_tokens: tokens the draft wrote for segments, kept or not (in the target's tokenization).
        draft_s, verify_s, rewrite_s, probe_s: drafting; verification by the target; decoding by the target
            (rewritten segments, first segment, answer); probes.
    """

    prompt_tokens: int = 0
    num_tokens: int = 0
    draft_tokens: int = 0
    drafted_tokens: int = 0
    segments_accepted: int = 0
    segments_rejected: int = 0
    wall_s: float = 0.0
    draft_s: float = 0.0
    verify_s: float = 0.0
    rewrite_s: float = 0.0
    probe_s: float = 0.0

    @property
    def draft_token_share(self) -> float:
        """Share of the output's tokens that the draft wrote, 0..1."""
        return self.draft_tokens / self.num_tokens if self.num_tokens else 0.0

    @property
    def overhead_s(self) -> float:
        """Wall-clock seconds spent in neither engine nor probe."""
        return self.wall_s - self.draft_s - self.verify_s - self.rewrite_s - self.probe_s


@dataclass(frozen=True, slots=True)
class Result:
    """A finished request.

    Attributes:
        text: the whole output with think tags, without end-of-text tokens.
        reasoning, answer: the text before and after `</think>`; text without think tags is the answer.
        segments: all segments in order, rejected ones included.
        finish_reason: "stop" (end of text or a stop string) or "length" (`max_new_tokens` or the context is used up).
        lossy: whether the rule that was used can change the distribution of the output.
        speculation_ended: why and where the target began to write alone, before the request ended; None if it did not.
    """

    text: str
    token_ids: tuple[int, ...]
    segments: tuple[Segment, ...]
    stats: Stats
    finish_reason: StopReason
    lossy: bool
    reasoning: str = ""
    answer: str = ""
    speculation_ended: SpeculationEnded | None = None


@dataclass(frozen=True, slots=True)
class SegmentDrafted:
    """The draft has written a segment; none of it is output yet."""

    index: int
    text: str
    num_tokens: int


@dataclass(frozen=True, slots=True)
class SegmentDecided:
    """The verdict on the last drafted segment. What is kept follows as `TextWritten` by the draft."""

    index: int
    segment: Segment
    num_kept: int


@dataclass(frozen=True, slots=True)
class TextWritten:
    """Output, which is never taken back. Joined, these are the result's text and its token ids.

    `text` lags behind `token_ids` (in the target's vocabulary) while a character is incomplete, or while the text could
    be the start of a stop string. Either can be empty.
    """

    author: Author
    text: str
    token_ids: tuple[int, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ThinkingEnded:
    """`</think>` has been written; the answer follows.

    Attributes:
        num_tokens: number of output tokens up to and including the one that completes the tag.
    """

    num_tokens: int


@dataclass(frozen=True, slots=True)
class SpeculationEnded:
    """From here on the target writes alone.

    Attributes:
        reason: why, for people.
        num_tokens: number of output tokens so far.
    """

    reason: str
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of every request."""

    result: Result


Event = SegmentDrafted | SegmentDecided | TextWritten | ThinkingEnded | SpeculationEnded | Finished
