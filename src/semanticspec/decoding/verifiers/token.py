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
    from torch import Tensor


class TokenRule:
    """Keeps the prefix that speculative sampling accepts; a token of the residual distribution follows it."""

    lossy = False
    needs_distributions = True

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


def accept_tokens(token_ids: tuple[int, ...], target: Tensor, draft: Tensor, random: Random) -> Verdict:
    """Accepts tokens one by one with probability min(1, target / draft).

    At the first token that fails, a token is drawn from the normalised positive part of target - draft.

    Args:
        token_ids: the drafted tokens, in the target's vocabulary.
        target: `[tokens + 1, vocabulary]`, under the sampling settings in force.
        draft: what the draft sampled from, `[tokens, vocabulary]`, possibly on another device; a further row means
            that the draft continued with a token that the target does not have.
    """
    places, columns = list(range(len(token_ids))), list(token_ids)
    # One copy from each device, instead of one per token.
    p_targets, p_drafts = target[places, columns].tolist(), draft[places, columns].tolist()
    for i, (p_target, p_draft) in enumerate(zip(p_targets, p_drafts, strict=True)):
        if random.random() * p_draft >= p_target:
            return Verdict(False, i, "token", draw_residual(target[i], draft[i], random), "draft")
    num_tokens = len(token_ids)
    if len(draft) > num_tokens:
        next_id = draw_residual(target[num_tokens], draft[num_tokens], random)
        return Verdict(False, num_tokens, "token", next_id, "draft")
    return Verdict(True, num_tokens, "token", next_author="draft")


def draw_residual(target: Tensor, draft: Tensor, random: Random) -> int:
    """Draws from max(0, target - draft), normalised; `[vocabulary]` each, widths may differ by padding.

    This is the only place where tensors of both models meet. It runs on the CPU: the models may be on two devices, and
    MPS has no float64.
    """
    target, draft = target.cpu().double(), draft.cpu().double()
    residual = target.clone()
    shared = min(len(target), len(draft))
    residual[:shared] = (residual[:shared] - draft[:shared]).clamp(min=0)
    if float(residual.sum()) <= 0:  # equal up to rounding: every token passes with probability 1
        residual = target
    cumulative = residual.cumsum(0)
    index = int((cumulative <= random.random() * float(cumulative[-1])).sum())
    while index >= len(residual) or float(residual[index]) == 0:  # rounding at the upper end
        index -= 1
    return index
