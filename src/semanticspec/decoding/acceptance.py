"""Rules that decide whether a drafted segment is kept: numbers in, verdict out, explicit randomness.

No rule calls a model. What a rule does not look at may be missing from the evidence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from semanticspec.config import RuleConfig
from semanticspec.records import Verdict

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a drafted segment when its verdict is due.

    Attributes:
        token_ids: the segment in the target's tokens.
        ranks: rank of each token in the target's distribution, 1 = its favourite.
        p_target, p_draft: semantic probabilities by the two probes.
        target_distributions: `[tokens + 1, vocabulary]`, under the sampling settings in force.
        draft_distributions: what the draft drew from, `[tokens, vocabulary]`; a further row means that the
            draft went on with a token the target does not have.
    """

    token_ids: tuple[int, ...]
    ranks: tuple[int, ...] = ()
    p_target: float | None = None
    p_draft: float | None = None
    target_distributions: Tensor | None = None
    draft_distributions: Tensor | None = None


def decide(rule: RuleConfig, evidence: Evidence, random: Random) -> Verdict:
    """The verdict of a rule on one drafted segment."""
    return _RULES[rule.name](rule, evidence, random)


def takes_shortcut(rule: RuleConfig, evidence: Evidence) -> bool:
    """Whether the semantic rule accepts without asking the probes.

    Source: the authors' latest script (top 2); not in the paper's text.
    """
    return rule.name == "semantic" and rule.shortcut_top_k > 0 and _all_within(evidence, rule.shortcut_top_k)


def semantic_acceptance(rule: RuleConfig, p_target: float, p_draft: float) -> float:
    """Probability of keeping a segment: min(1, p_target / (strictness * p_draft)), 0 below one of the floors.

    Source: SemanticSpec (arXiv 2602.03708), acceptance rule; strictness and the target's floor are ours (1 and 0
    give the paper's rule).
    """
    ratio = p_target / (rule.strictness * p_draft)
    return 0.0 if ratio < rule.ratio_floor or p_target < rule.target_floor else min(1.0, ratio)


def accept_rate(rule: RuleConfig, num_tokens: int) -> float:
    """The random control's rate for a segment of this length."""
    for longest, rate in rule.accept_rate_by_length:
        if num_tokens <= longest:
            return rate
    return rule.accept_rate_by_length[-1][1] if rule.accept_rate_by_length else rule.accept_rate


def _whole(accepted: bool, evidence: Evidence, reason: str) -> Verdict:
    return Verdict(accepted, len(evidence.token_ids) if accepted else 0, reason)


def _all_within(evidence: Evidence, top_k: int) -> bool:
    return all(rank <= top_k for rank in evidence.ranks)


def _semantic(rule: RuleConfig, evidence: Evidence, random: Random) -> Verdict:
    if takes_shortcut(rule, evidence):
        return _whole(True, evidence, "shortcut")
    assert evidence.p_target is not None
    assert evidence.p_draft is not None
    acceptance = semantic_acceptance(rule, evidence.p_target, evidence.p_draft)
    return _whole(random.random() < acceptance, evidence, "semantic")


def _top_k(rule: RuleConfig, evidence: Evidence, random: Random) -> Verdict:  # noqa: ARG001
    return _whole(_all_within(evidence, rule.top_k), evidence, "top-k")


def _random(rule: RuleConfig, evidence: Evidence, random: Random) -> Verdict:
    return _whole(random.random() < accept_rate(rule, len(evidence.token_ids)), evidence, "random")


def _always(rule: RuleConfig, evidence: Evidence, random: Random) -> Verdict:  # noqa: ARG001
    return _whole(True, evidence, "always")


def _never(rule: RuleConfig, evidence: Evidence, random: Random) -> Verdict:  # noqa: ARG001
    return _whole(False, evidence, "never")


def _token(rule: RuleConfig, evidence: Evidence, random: Random) -> Verdict:  # noqa: ARG001
    """Token-level speculative sampling over the segment: lossless.

    Tokens pass one by one with probability min(1, target / draft); at the first that fails, a token is drawn
    from the normalised positive part of target - draft. Source: Leviathan et al. 2023, algorithm 1.
    """
    target, draft = evidence.target_distributions, evidence.draft_distributions
    assert target is not None
    assert draft is not None
    for i, token_id in enumerate(evidence.token_ids):
        p_target, p_draft = float(target[i, token_id]), float(draft[i, token_id])
        if random.random() * p_draft >= p_target:
            return Verdict(False, i, "token", _draw_residual(target[i], draft[i], random))
    passed = len(evidence.token_ids)
    if len(draft) > passed:
        return Verdict(False, passed, "token", _draw_residual(target[passed], draft[passed], random))
    return Verdict(True, passed, "token")


def _draw_residual(target: Tensor, draft: Tensor, random: Random) -> int:
    """Draws from max(0, target - draft), normalised; `[vocabulary]` each, widths may differ by padding."""
    residual = target.double().clone()
    shared = min(len(target), len(draft))
    residual[:shared] = (residual[:shared] - draft[:shared]).clamp(min=0)
    if float(residual.sum()) <= 0:  # equal up to rounding: every token passes with probability 1
        residual = target.double()
    cumulative = residual.cumsum(0)
    index = int((cumulative <= random.random() * float(cumulative[-1])).sum())
    while index >= len(residual) or float(residual[index]) == 0:  # rounding at the upper end
        index -= 1
    return index


_RULES: dict[str, Callable[[RuleConfig, Evidence, Random], Verdict]] = {
    "semantic": _semantic,
    "top-k": _top_k,
    "token": _token,
    "random": _random,
    "always": _always,
    "never": _never,
}
