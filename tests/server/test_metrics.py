"""Prometheus metrics against the figures in the responses."""

from __future__ import annotations

import pytest

from tests.support.serving import live, scripted_pair


async def test_metrics_match_the_responses():
    async with live(scripted_pair()) as server:
        answers = [(await server.chat(seed=seed)).json() for seed in range(5)]
        figures = await server.metrics()
    speculative = [answer["metrics"]["speculative_decoding"] for answer in answers]
    prefix = "semanticspec:"
    assert figures[f"{prefix}request_success_total|stop"] == 5
    for name, field in (
        ("num_drafts", "num_spec_steps"),
        ("num_draft_tokens", "num_draft_tokens"),
        ("num_accepted_tokens", "num_accepted_draft_tokens"),
    ):
        assert figures[f"{prefix}spec_decode_{name}_total"] == sum(s[field] for s in speculative) > 0
    for name in ("prompt", "generation"):
        usage = "prompt_tokens" if name == "prompt" else "completion_tokens"
        assert figures[f"{prefix}{name}_tokens_total"] == sum(answer["usage"][usage] for answer in answers)
    semantic = [answer["metrics"]["semantic"] for answer in answers]
    for outcome in ("accepted", "rejected"):
        counted = figures[f"{prefix}segments_total|draft|{outcome}|semantic"]
        assert counted == sum(s[f"num_segments_{outcome}"] for s in semantic) > 0
    drafts = sum(s["num_spec_steps"] for s in speculative)
    assert figures[f"{prefix}semantic_probability_bucket|0.5|target"] == drafts
    assert figures[f"{prefix}semantic_probability_bucket|0.9|draft"] == 0
    assert figures[f"{prefix}time_to_first_token_seconds_count"] == 5
    assert figures[f"{prefix}e2e_request_latency_seconds_count"] == 5
    draft_s = figures[f"{prefix}phase_seconds_total|draft"]
    assert draft_s == pytest.approx(sum(s["seconds"]["draft"] for s in semantic), abs=1e-4)
    assert figures[f"{prefix}num_requests_running"] == figures[f"{prefix}num_requests_waiting"] == 0
