"""The semantic rule: keep a segment if the target would say something with its meaning about as likely as the draft."""

from __future__ import annotations

from typing import cast

from semanticspec.config import RuleConfig
from semanticspec.decoding.context import RequestContext
from semanticspec.decoding.draft import Draft
from semanticspec.decoding.pair import SegmentProbe, SemanticProbe
from semanticspec.decoding.verifiers.top_k import all_in_top_k
from semanticspec.records import Reading, Score, Verdict


class SemanticRule:
    """Accepts with probability `acceptance_probability`, estimated by probes on both models' states. Lossy.

    Source: SemanticSpec (arXiv 2602.03708), acceptance rule.
    """

    lossy = True
    needs_distributions = False

    def __init__(self, request: RequestContext) -> None:
        self._request, self._config = request, request.config.rule
        shortcut, pair = self._config.shortcut_top_k > 0, request.pair
        self.needs_signals = shortcut or getattr(pair.target_probe, "needs_signals", True)
        self.needs_text = any(
            getattr(probe, "needs_draft", False) for probe in (pair.target_probe, pair.draft_probe)
        )

    def decide(self, draft: Draft, score: Score) -> Verdict:
        num_tokens = len(draft.token_ids)
        # Source: the authors' latest script (top 2); not in the paper's text.
        if self._config.shortcut_top_k > 0 and all_in_top_k(score, self._config.shortcut_top_k):
            return Verdict(True, num_tokens, "shortcut")
        pair = self._request.pair
        assert pair.target_probe is not None
        assert pair.draft_probe is not None
        with self._request.clock.phase("probe"):
            p_target = _estimate(pair.target_probe, score, draft)
            p_draft = _estimate(pair.draft_probe, draft.generation, draft)
        accepted = self._request.random.random() < acceptance_probability(self._config, p_target, p_draft)
        return Verdict(
            accepted, num_tokens if accepted else 0, "semantic", p_target=p_target, p_draft=p_draft
        )


def _estimate(probe: SemanticProbe, reading: Reading, draft: Draft) -> float:
    """Asks a probe, with the whole drafted segment if it needs that."""
    if getattr(probe, "needs_draft", False):
        return cast(SegmentProbe, probe).estimate(reading, draft)
    return probe.estimate(reading)


def acceptance_probability(rule: RuleConfig, p_target: float, p_draft: float) -> float:
    """Probability of keeping a segment: min(1, p_target / (strictness * p_draft)), 0 below one of the floors.

    Source: SemanticSpec (arXiv 2602.03708), acceptance rule. Strictness and the target's floor are ours; 1 and 0
    give the paper's rule.
    """
    ratio = p_target / (rule.strictness * p_draft)
    return 0.0 if ratio < rule.ratio_floor or p_target < rule.target_floor else min(1.0, ratio)
