"""The token rule: token-level speculative sampling. Lossless.

Source: Leviathan et al. 2023, algorithm 1.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from semanticspec.decoding.context import RequestContext
from semanticspec.decoding.draft import Draft
from semanticspec.records import Score, Verdict

if TYPE_CHECKING:
    from semanticspec.distributions import Distributions


class TokenRule:
    """Keeps the prefix that speculative sampling accepts; a token of the residual distribution follows it."""

    lossy = False
    needs_distributions = True
    needs_signals = False

    def __init__(self, request: RequestContext) -> None:
        self._request = request

    def decide(self, draft: Draft, score: Score) -> Verdict:
        assert draft.generation.distributions is not None
        assert score.distributions is not None
        return accept_tokens(
            draft.token_ids,
            score.distributions,
            self._request.pair.to_target.distributions(draft.generation.distributions),
            self._request.random,
        )


def accept_tokens(
    token_ids: tuple[int, ...], target: Distributions, draft: Distributions, random: Random
) -> Verdict:
    """Accepts tokens one by one with probability min(1, target / draft).

    At the first token that fails, a token is drawn from the normalized positive part of target - draft.

    Args:
        token_ids: the drafted tokens, in the target's vocabulary.
        target: of each token and the next one, under the sampling settings in force.
        draft: what each token was drawn from; one more means that the draft continued with a token that the target
            does not have.
    """
    for i, token_id in enumerate(token_ids):
        if random.random() * draft[i].of(token_id) >= target[i].of(token_id):
            next_id = target[i].residual(draft[i]).draw(random.random())
            return Verdict(False, i, "token", next_id, "draft")
    num_tokens = len(token_ids)
    if len(draft) > num_tokens:
        next_id = target[num_tokens].residual(draft[num_tokens]).draw(random.random())
        return Verdict(False, num_tokens, "token", next_id, "draft")
    return Verdict(True, num_tokens, "token", next_author="draft")
