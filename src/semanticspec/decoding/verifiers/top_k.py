"""The top-k rule: keep a segment if each of its tokens is among the target's k most probable ones. Lossy."""

from __future__ import annotations

from semanticspec.decoding.context import RequestContext
from semanticspec.decoding.draft import Draft
from semanticspec.records import Score, Verdict


class TopKRule:
    """Accepts if every token is among the target's `config.rule.top_k` most probable tokens."""

    lossy = True
    needs_distributions = False
    needs_signals = True

    def __init__(self, request: RequestContext) -> None:
        self._top_k = request.config.rule.top_k

    def decide(self, draft: Draft, score: Score) -> Verdict:
        accepted = all_in_top_k(score, self._top_k)
        return Verdict(accepted, len(draft.token_ids) if accepted else 0, "top-k")


def all_in_top_k(score: Score, k: int) -> bool:
    """Whether each scored token is among the target's k most probable tokens at its position."""
    return all(rank <= k for rank in score.ranks)
