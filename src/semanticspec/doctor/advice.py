"""What the measured costs mean, in plain words."""

from __future__ import annotations

from semanticspec.doctor.checks import Finding
from semanticspec.doctor.costs import PROPOSAL_TOKENS, SEGMENT_TOKENS, Costs

_PAYS = 1.3
_HARDLY_PAYS = 1.1
_EXPENSIVE_DRAFT = 0.5
_EXPENSIVE_VERIFICATION = 2.5


def cost_findings(costs: Costs) -> list[Finding]:
    """The measured costs, one finding each."""
    passes = ", ".join(f"{n}: {1000 * seconds:.1f} ms" for n, seconds in sorted(costs.verify_s.items()))
    return [
        Finding("ok", "target decodes", f"{1000 * costs.target_token_s:.1f} ms a token"),
        Finding(
            "ok",
            "draft decodes",
            f"{1000 * costs.draft_token_s:.1f} ms a token, {costs.draft_cost:.2f} of a target token",
        ),
        Finding("ok", "target verifies", f"tokens in one pass: {passes}"),
    ]


def verdict(costs: Costs, *, token_level: bool, has_probes: bool) -> list[str]:
    """Whether speculation can pay with this pair on this machine, and what to change. One sentence or two each.

    Args:
        token_level: token-level speculation is available (one vocabulary, engines with distributions).
        has_probes: the rule `semantic` is available.
    """
    limit = costs.segment_limit()
    sentences = [_headline(limit)]
    sentences.append(
        f"If every drafted segment of {SEGMENT_TOKENS} tokens were kept, answers would take 1/{limit:.2f} of the "
        "target's time; rejections make it less."
    )
    if token_level:
        sentences.append(_token_level(costs))
    sentences += _changes(costs, limit, token_level=token_level, has_probes=has_probes)
    return sentences


def _headline(limit: float) -> str:
    if limit < _HARDLY_PAYS:
        return "Speculation cannot pay with this pair on this machine."
    if limit < _PAYS:
        return "Speculation can hardly pay with this pair on this machine."
    return "Speculation can pay with this pair on this machine."


def _token_level(costs: Costs) -> str:
    needed = costs.break_even_acceptance()
    if needed is None:
        return "Token-level speculation cannot pay, even if every proposed token were kept."
    text = (
        f"Token-level speculation (lossless) pays if more than {needed:.0%} of the proposed tokens are kept."
    )
    if costs.token_acceptance is None:
        return text
    return (
        f"{text} On one sample prompt {costs.token_acceptance:.0%} were kept, which predicts "
        f"{costs.token_speedup(costs.token_acceptance):.2f}x."
    )


def _changes(costs: Costs, limit: float, *, token_level: bool, has_probes: bool) -> list[str]:
    changes = []
    if costs.draft_cost > _EXPENSIVE_DRAFT:
        changes.append(
            f"The draft is slow: a token costs {costs.draft_cost:.2f} of a target token. Use a smaller draft, run it "
            "quantised (a GGUF file with --draft-engine llama-cpp), or use a larger target."
        )
    if costs.verify_cost(PROPOSAL_TOKENS) > _EXPENSIVE_VERIFICATION:
        changes.append(
            f"Verification is slow: {PROPOSAL_TOKENS} tokens in one pass cost "
            f"{costs.verify_cost(PROPOSAL_TOKENS):.1f} target tokens. On a CPU, use bfloat16 where the processor "
            "supports it, and more threads."
        )
    if limit >= _HARDLY_PAYS and not has_probes:
        other = "--rule token (lossless)" if token_level else "--rule top-k"
        changes.append(f"Without probes the rule semantic is not available: use {other}.")
    changes.append("Measure on your own problems before you decide: semanticspec bench.")
    return changes
