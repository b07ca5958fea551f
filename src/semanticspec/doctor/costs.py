"""What drafting, verifying and decoding cost on this machine, and the speed-ups that follow from it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from random import Random
from statistics import median

from semanticspec.config import DecodingConfig, RuleConfig
from semanticspec.decoding.generate import generate_async
from semanticspec.decoding.pair import Model, Pair
from semanticspec.records import Sampling, Stop

PROMPT = (
    "A shop sells pens in boxes of 12. On Monday it sells 7 boxes and 5 single pens, on Tuesday twice as many pens. "
    "How many pens does it sell on both days together? Reason step by step."
)
SEGMENT_TOKENS = 32
PROPOSAL_TOKENS = 8
_VERIFIED_TOKENS = (1, PROPOSAL_TOKENS, SEGMENT_TOKENS)
_DECODED_TOKENS = 12
_SAMPLE_TOKENS = 64
_SAMPLING = Sampling()


@dataclass(frozen=True, slots=True)
class Costs:
    """Median seconds, one request at a time.

    Attributes:
        target_token_s, draft_token_s: one token decoded by each model.
        verify_s: one pass of the target over so many drafted tokens after a cached context.
        token_acceptance: share of verified proposed tokens that the target kept on one sample; None if token-level
            speculation is not available or there was no time for it.
    """

    target_token_s: float
    draft_token_s: float
    verify_s: dict[int, float]
    token_acceptance: float | None = None

    @property
    def draft_cost(self) -> float:
        """Cost of a drafted token, in target tokens."""
        return self.draft_token_s / self.target_token_s

    def verify_cost(self, num_tokens: int) -> float:
        """Cost of verifying so many tokens in one pass, in target tokens; interpolated between the measured sizes."""
        points = sorted(self.verify_s.items())
        for (low, low_s), (high, high_s) in pairwise(points):
            if num_tokens <= high:
                share = (num_tokens - low) / (high - low)
                return (low_s + share * (high_s - low_s)) / self.target_token_s
        return points[-1][1] / self.target_token_s

    def segment_limit(self, num_tokens: int = SEGMENT_TOKENS) -> float:
        """Speed-up over the target alone if every drafted segment of this length were kept."""
        return num_tokens / (num_tokens * self.draft_cost + self.verify_cost(num_tokens))

    def token_speedup(self, acceptance: float) -> float:
        """Speed-up of token-level speculation at the best proposal size.

        Source: Leviathan et al. 2023, theorem 3.8, with the measured cost of the verifying pass.
        """
        speedups = []
        for num_tokens in range(1, PROPOSAL_TOKENS + 1):
            expected = sum(acceptance**place for place in range(num_tokens + 1))
            speedups.append(expected / (num_tokens * self.draft_cost + self.verify_cost(num_tokens)))
        return max(speedups)

    def break_even_acceptance(self) -> float | None:
        """Smallest acceptance of a proposed token at which token-level speculation pays; None if it never does."""
        if self.token_speedup(1.0) <= 1:
            return None
        low, high = 0.0, 1.0
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (middle, high) if self.token_speedup(middle) <= 1 else (low, middle)
        return high


async def measure_costs(pair: Pair, seconds: float, prompt: str = PROMPT) -> Costs:
    """Measures the costs after one untimed warm-up, in about this many seconds.

    Args:
        prompt: the context of all measurements, and what is answered to see how many proposed tokens are kept.

    Raises:
        EngineError: an engine failed.
    """
    deadline = time.perf_counter() + seconds
    distributions = all(model.engine.info.capabilities.distributions for model in (pair.target, pair.draft))
    share = seconds / 6
    target_token_s = await _token_s(pair.target, prompt, share, distributions=False)
    draft_distributions = distributions and pair.same_vocabulary
    draft_token_s = await _token_s(pair.draft, prompt, share, distributions=draft_distributions)
    verify_s = {
        num_tokens: await _pass_s(pair.target, prompt, num_tokens, share / 2, distributions=distributions)
        for num_tokens in _VERIFIED_TOKENS
    }
    costs = Costs(target_token_s, draft_token_s, verify_s)
    needed = _SAMPLE_TOKENS * target_token_s
    if distributions and pair.same_vocabulary and time.perf_counter() + needed < deadline + share:
        costs = replace(costs, token_acceptance=await _token_acceptance(pair, prompt))
    return costs


async def _token_s(model: Model, prompt: str, seconds: float, *, distributions: bool) -> float:
    """Seconds per decoded token; the same context is cached, seeds differ."""
    context_ids = model.vocabulary.render_prompt(prompt)
    seeds = iter(range(1, 10_000))

    async def decode() -> None:
        await model.engine.generate(
            context_ids,
            max_tokens=_DECODED_TOKENS,
            stop=Stop(),
            sampling=_SAMPLING,
            seed=next(seeds),
            distributions=distributions,
        )

    return await _median_s(decode, seconds) / _DECODED_TOKENS


async def _pass_s(
    model: Model, prompt: str, num_tokens: int, seconds: float, *, distributions: bool
) -> float:
    """Seconds of one scoring pass over tokens that no earlier pass has seen."""
    context_ids = model.vocabulary.render_prompt(prompt)
    random = Random(num_tokens)
    ordinary = [i for i in model.vocabulary.encode(prompt) if i not in model.vocabulary.added_tokens]

    async def verify() -> None:
        await model.engine.score(
            context_ids,
            [[random.choice(ordinary) for _ in range(num_tokens)]],
            sampling=_SAMPLING,
            distributions=distributions,
        )

    return await _median_s(verify, seconds)


async def _median_s(call: Callable[[], Awaitable[None]], seconds: float) -> float:
    """Median seconds of a call after one untimed call: three times at least, then until the time is up."""
    await call()
    end = time.perf_counter() + seconds
    spent: list[float] = []
    while len(spent) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        await call()
        spent.append(time.perf_counter() - start)
    return median(spent)


async def _token_acceptance(pair: Pair, prompt: str) -> float | None:
    """Share of verified proposed tokens that the target keeps while it answers one prompt."""
    config = DecodingConfig(
        rule=RuleConfig("never"),
        num_speculative_tokens=PROPOSAL_TOKENS,
        first_segment="target",
        max_segment_tokens=_SAMPLE_TOKENS,
        max_new_tokens=_SAMPLE_TOKENS,
    )
    result = await generate_async(pair, prompt, config)
    proposals = [proposal for segment in result.segments for proposal in segment.proposals]
    kept = sum(num_kept for _, num_kept in proposals)
    failed = sum(num_kept < proposed for proposed, num_kept in proposals)
    return kept / (kept + failed) if kept + failed else None
