"""What a token costs, measured in the run itself, and how fast the method could be if nothing were rejected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from semanticspec.benchmark.methods import split_name
from semanticspec.benchmark.rows import Row

_LOOP_RULES = ("semantic", "semantic-paper", "top-k", "random", "always", "never", "token")
_TARGETS = ("target", "hf-target")


@dataclass(frozen=True, slots=True)
class Costs:
    """Mean seconds of one token or segment, and the limit that follows.

    Attributes:
        drafted_token_s: one token written by the draft.
        verified_token_s, verified_segment_s: one drafted token read by the target, and what a segment's pass costs
            besides, probes included; fitted over requests.
        target_token_s: one token of the target alone.
        segment_tokens: mean length of a drafted segment.
        answer_share: share of the target's output that follows the thinking; the target writes it itself.
        limit_speedup: of a method with all drafted segments accepted, at the target's lengths and without any
            overhead.
        measured_on: the method whose rows the first three come from, and the target.
    """

    drafted_token_s: float
    verified_token_s: float
    verified_segment_s: float
    target_token_s: float
    segment_tokens: float
    answer_share: float
    limit_speedup: float
    measured_on: tuple[str, str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def costs_of(rows: Mapping[str, Sequence[Row]]) -> Costs | None:
    """The costs from the rows of a drafting method and of the target; None if either is missing."""
    target = _faster_target(rows)
    drafting = next(iter(verifying_methods(rows)), None)
    if target is None or drafting is None:
        return None
    own = [row for row in rows[drafting] if row.drafted_tokens and not row.failed]
    drafted = _sum(own, "drafted_tokens")
    segments = [float(row.segments_accepted + row.segments_rejected) for row in own]
    if not sum(segments):
        return None
    verify_segment_s, verify_token_s = fit_segments(
        segments, [float(row.drafted_tokens) for row in own], [row.verify_s + row.probe_s for row in own]
    )
    draft_token_s = _sum(own, "draft_s") / drafted
    target_tokens = _sum(rows[target], "num_tokens")
    target_token_s = _sum(rows[target], "wall_s") / target_tokens
    answer_share = _sum(rows[target], "answer_tokens") / target_tokens
    segment_tokens = drafted / sum(segments)
    speculated_s = draft_token_s + verify_token_s + verify_segment_s / segment_tokens
    ideal_token_s = (1 - answer_share) * speculated_s + answer_share * target_token_s
    return Costs(
        drafted_token_s=draft_token_s,
        verified_token_s=verify_token_s,
        verified_segment_s=verify_segment_s,
        target_token_s=target_token_s,
        segment_tokens=segment_tokens,
        answer_share=answer_share,
        limit_speedup=target_token_s / ideal_token_s,
        measured_on=(drafting, target),
    )


def lost_seconds(rows: Sequence[Row], costs: Costs) -> dict[str, float]:
    """Where the seconds of a drafting method go beyond those it would need with everything accepted.

    Returns:
        Seconds over all rows: `drafts kept` and `answer` are the ideal; the others are lost.
    """
    drafted = _sum(rows, "drafted_tokens")
    kept = _sum(rows, "draft_tokens")
    rejected_share = 1 - kept / drafted if drafted else 0.0
    speculated_s = _sum(rows, "draft_s") + _sum(rows, "verify_s") + _sum(rows, "probe_s")
    # A reasoning that the rule left to the target wholly has no answer of its own to tell apart.
    answer_s = min(_sum(rows, "answer_tokens") * costs.target_token_s, _sum(rows, "rewrite_s"))
    return {
        "drafts kept": speculated_s * (1 - rejected_share),
        "drafts rejected": speculated_s * rejected_share,
        "rewritten by the target": _sum(rows, "rewrite_s") - answer_s,
        "answer": answer_s,
        "overhead": _sum(rows, "wall_s") - speculated_s - _sum(rows, "rewrite_s"),
    }


def drafting_methods(rows: Mapping[str, Sequence[Row]]) -> list[str]:
    """Methods whose segments were judged."""
    return [
        name
        for name, own in rows.items()
        if any(row.segments_accepted + row.segments_rejected for row in own)
    ]


def verifying_methods(rows: Mapping[str, Sequence[Row]]) -> list[str]:
    """Those of them that judge by one pass of the target over the draft, as the limit assumes.

    The semantic rule first, and each rule without optimizations before the same with some.
    """
    judged = [name for name in drafting_methods(rows) if split_name(name)[0] in _LOOP_RULES]
    return sorted(judged, key=lambda name: (_LOOP_RULES.index(split_name(name)[0]), "+" in name))


def _faster_target(rows: Mapping[str, Sequence[Row]]) -> str | None:
    there = [name for name in _TARGETS if name in rows and _sum(rows[name], "num_tokens")]
    return min(there, key=lambda name: _sum(rows[name], "wall_s")) if there else None


def fit_segments(
    segments: Sequence[float], tokens: Sequence[float], seconds: Sequence[float]
) -> tuple[float, float]:
    """Seconds of a segment and of a token by least squares; neither is below 0.

    Where the two cannot be told apart (one request, equal lengths) all is counted to the tokens.
    """
    inputs = torch.tensor([segments, tokens], dtype=torch.float64).T
    outputs = torch.tensor(seconds, dtype=torch.float64)[:, None]
    fitted = torch.linalg.lstsq(inputs, outputs, driver="gelsd").solution[:, 0].tolist()
    if torch.linalg.matrix_rank(inputs) < 2 or min(fitted) < 0:
        per_token = sum(seconds) / sum(tokens)
        per_segment = sum(seconds) / sum(segments)
        return (per_segment, 0.0) if fitted[1] < 0 <= fitted[0] else (0.0, per_token)
    return fitted[0], fitted[1]


def _sum(rows: Sequence[Row], field: str) -> float:
    return float(sum(getattr(row, field) for row in rows))
