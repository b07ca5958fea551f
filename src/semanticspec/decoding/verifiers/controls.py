"""Controls for comparisons: verdicts that do not depend on what the models say."""

from __future__ import annotations

from semanticspec.config import RuleConfig
from semanticspec.decoding.context import RequestContext
from semanticspec.decoding.draft import Draft
from semanticspec.records import Score, Verdict


class RandomRule:
    """Accepts at random at the configured rate. Lossy: what a method must beat at the same share of drafted text."""

    lossy = True
    needs_distributions = False
    needs_signals = False

    def __init__(self, request: RequestContext) -> None:
        self._request = request

    def decide(self, draft: Draft, score: Score) -> Verdict:
        num_tokens = len(draft.token_ids)
        accepted = self._request.random.random() < accept_rate(self._request.config.rule, num_tokens)
        return Verdict(accepted, num_tokens if accepted else 0, "random")


class AlwaysRule:
    """Accepts everything: the draft alone, at the cost of verification. Lossy."""

    lossy = True
    needs_distributions = False
    needs_signals = False

    def __init__(self, request: RequestContext) -> None: ...

    def decide(self, draft: Draft, score: Score) -> Verdict:
        return Verdict(True, len(draft.token_ids), "always")


class NeverRule:
    """Rejects everything: the target alone, at the cost of drafts and verification. Lossless."""

    lossy = False
    needs_distributions = False
    needs_signals = False

    def __init__(self, request: RequestContext) -> None: ...

    def decide(self, draft: Draft, score: Score) -> Verdict:
        return Verdict(False, 0, "never")


def accept_rate(rule: RuleConfig, num_tokens: int) -> float:
    """The random control's acceptance rate for a segment of this length."""
    for longest, rate in rule.accept_rate_by_length:
        if num_tokens <= longest:
            return rate
    return rule.accept_rate_by_length[-1][1] if rule.accept_rate_by_length else rule.accept_rate
