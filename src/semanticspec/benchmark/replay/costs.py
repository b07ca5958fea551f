"""The cost model: what a token costs in the replay, and the predicted seconds of any plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

from semanticspec.benchmark.costs import fit_segments
from semanticspec.benchmark.replay.plan import Plan, Turn
from semanticspec.benchmark.replay.play import Play


@dataclass(frozen=True, slots=True)
class TokenCosts:
    """Mean seconds of each kind of token, measured in plays of the target alone and of the plain loop.

    Attributes:
        drafted_token_s: one drafted token.
        verified_token_s, verified_pass_s: one verified token, and the fixed cost of a pass; fitted over segments.
        target_token_s: one token decoded by the target alone.
        target_prompt_s, prompt_s: prefill of a prompt by the target, by both models.
    """

    drafted_token_s: float
    verified_token_s: float
    verified_pass_s: float
    target_token_s: float
    target_prompt_s: float
    prompt_s: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def verify_s(self, tokens: float) -> float:
        """Seconds of one pass of the target over drafted tokens."""
        return self.verified_pass_s + tokens * self.verified_token_s

    def limit_speedup(self, segment_tokens: float) -> float:
        """Speed-up if every drafted segment had this length and were accepted, without prompts."""
        return self.target_token_s / (self.drafted_token_s + self.verify_s(segment_tokens) / segment_tokens)


def measured_costs(target: Sequence[Play], plain: Sequence[Play]) -> TokenCosts:
    """Measures the costs in plays of the target alone and of the plain loop."""
    verified = [one for play in plain for one in play.verified]
    tokens, seconds = zip(*verified, strict=True)
    per_pass, per_token = fit_segments([1.0] * len(verified), [float(n) for n in tokens], seconds)
    return TokenCosts(
        drafted_token_s=sum(p.draft_s for p in plain) / sum(p.counts.drafted_tokens for p in plain),
        verified_token_s=per_token,
        verified_pass_s=per_pass,
        target_token_s=sum(p.rewrite_s for p in target) / sum(p.counts.num_tokens for p in target),
        target_prompt_s=sum(p.prompt_s for p in target) / len(target),
        prompt_s=sum(p.prompt_s for p in plain) / len(plain),
    )


def predicted_s(plan: Plan, costs: TokenCosts) -> float:
    """Predicts the seconds of a plan. Overlap counts as if each model had its own device."""
    seconds = costs.prompt_s if plan.config.speculate else costs.target_prompt_s
    for turn, following in zip_longest(plan.turns, plan.turns[1:]):
        seconds += _turn_s(turn, costs)
        if plan.config.overlap and turn.judged and turn.accepted and following is not None:
            seconds -= min(costs.verify_s(turn.drafted), following.drafted * costs.drafted_token_s)
    return seconds


def _turn_s(turn: Turn, costs: TokenCosts) -> float:
    proposed = [number for number, _ in turn.proposals if number]
    alone = turn.streamed + len(turn.proposals) - len(proposed)
    drafted = turn.drafted + sum(proposed)
    verified = [turn.drafted] * turn.judged + proposed
    verify_s = sum(map(costs.verify_s, verified))
    return drafted * costs.drafted_token_s + verify_s + alone * costs.target_token_s
