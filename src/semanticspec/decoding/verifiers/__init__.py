"""Verifiers: what decides on a drafted segment. One file for each kind; `RULES` lists those of `RuleConfig.name`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from semanticspec.decoding.context import RequestContext
from semanticspec.decoding.verifiers.base import Rule, Verifier
from semanticspec.decoding.verifiers.controls import AlwaysRule, NeverRule, RandomRule
from semanticspec.decoding.verifiers.scoring import ScoringVerifier
from semanticspec.decoding.verifiers.semantic import SemanticRule
from semanticspec.decoding.verifiers.token import TokenRule
from semanticspec.decoding.verifiers.top_k import TopKRule
from semanticspec.records import Sampling

RULES: Mapping[str, Callable[[RequestContext], Rule]] = {
    "semantic": SemanticRule,
    "top-k": TopKRule,
    "token": TokenRule,
    "random": RandomRule,
    "always": AlwaysRule,
    "never": NeverRule,
}


def make_verifier(request: RequestContext, rule: Rule | None = None) -> Verifier:
    """Makes the verifier of a rule (default: `config.rule`) with partial acceptance and added token as configured."""
    config = request.config
    next_token = None
    if config.bonus_token:
        next_token = Sampling(config.bonus_temperature, config.sampling.top_p)
    elif config.drafts_proposals:
        next_token = config.sampling
    rule = rule or RULES[config.rule.name](request)
    return ScoringVerifier(request, rule, partial_acceptance=config.accepts_partially, next_token=next_token)


def make_proposal_verifier(request: RequestContext) -> Verifier:
    """Makes the verifier of token-level speculation."""
    return ScoringVerifier(request, TokenRule(request), next_token=request.config.sampling)
