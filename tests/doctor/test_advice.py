"""The verdict follows from the costs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from semanticspec.doctor.advice import cost_findings, verdict
from semanticspec.doctor.costs import Costs

GOOD = Costs(
    target_token_s=0.1, draft_token_s=0.015, verify_s={1: 0.1, 8: 0.12, 32: 0.15}, token_acceptance=0.8
)


def said(costs: Costs, *, token_level: bool = True, has_probes: bool = True) -> str:
    return " ".join(verdict(costs, token_level=token_level, has_probes=has_probes))


@pytest.mark.parametrize(
    ("draft_token_s", "headline"),
    [(0.015, "can pay with"), (0.075, "can hardly pay"), (0.2, "cannot pay with")],
)
def test_the_headline_follows_the_limit(draft_token_s, headline):
    assert (
        headline in verdict(replace(GOOD, draft_token_s=draft_token_s), token_level=True, has_probes=True)[0]
    )


def test_a_slow_draft_and_a_slow_pass_are_named_with_what_to_change():
    assert "The draft is slow" not in said(GOOD)
    assert "--draft-engine llama-cpp" in said(replace(GOOD, draft_token_s=0.09))
    assert "Verification is slow: 8 tokens in one pass cost 4.0 target tokens" in said(
        replace(GOOD, verify_s={1: 0.1, 8: 0.4, 32: 0.9})
    )


def test_the_measured_acceptance_is_compared_with_what_is_needed():
    assert "80% were kept, which predicts" in said(GOOD)
    assert "were kept, which" not in said(replace(GOOD, token_acceptance=None))
    assert "cannot pay, even if every" in said(replace(GOOD, draft_token_s=0.2))
    assert "Token-level" not in said(GOOD, token_level=False)


def test_without_probes_a_rule_that_needs_none_is_named():
    assert "--rule token (lossless)" in said(GOOD, has_probes=False)
    assert "--rule top-k" in said(GOOD, has_probes=False, token_level=False)
    assert "Without probes" not in said(GOOD)


def test_costs_are_told_in_milliseconds_and_target_tokens():
    texts = {finding.subject: finding.text for finding in cost_findings(GOOD)}
    assert texts["draft decodes"] == "15.0 ms a token, 0.15 of a target token"
    assert texts["target verifies"] == "tokens in one pass: 1: 100.0 ms, 8: 120.0 ms, 32: 150.0 ms"
