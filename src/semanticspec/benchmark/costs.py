"""The cost model: what a token costs in this run, and the speed-up that follows if no segment were rejected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from semanticspec.benchmark.methods import METHODS, split_name
from semanticspec.benchmark.rows import Row

TARGETS = ("target", "hf-target")
"""The methods that decode with the target alone. The faster one of a run is the baseline of speed-ups."""


@dataclass(frozen=True, slots=True)
class Costs:
    """Mean seconds per token or segment, and the limit of the speed-up.

    Attributes:
        drafted_token_s: decoding one token with the draft.
        verified_token_s, verified_segment_s: verifying a segment costs the first per token plus the second, probes
            included; fitted over requests.
        target_token_s: decoding one token with the target alone.
        segment_tokens: mean length of a drafted segment.
        answer_share: share of the target's output after the thinking, which the target decodes itself.
        limit_speedup: speed-up with every drafted segment accepted, at the target's lengths and without overhead.
        measured_on: the method that the first three and `segment_tokens` come from, and that of the target.
    """

    drafted_token_s: float
    verified_token_s: float
    verified_segment_s: float
    target_token_s: float
    segment_tokens: float
    answer_share: float
    limit_speedup: float
    measured_on: tuple[str, str]


def measure_costs(rows: Mapping[str, Sequence[Row]]) -> Costs | None:
    """Measures the costs on a method that verifies segments and on the target; None if either is missing.

    Args:
        rows: by method.
    """
    target = _faster_target(rows)
    drafting = next(iter(verifying_methods(rows)), None)
    if target is None or drafting is None:
        return None
    own = [row for row in rows[drafting] if row.drafted_tokens and not row.failed]
    segments = [float(row.judged) for row in own]
    if not sum(segments):
        return None
    drafted = total(own, "drafted_tokens")
    verified_segment_s, verified_token_s = fit_segments(
        segments, [float(row.drafted_tokens) for row in own], [row.verify_s + row.probe_s for row in own]
    )
    drafted_token_s = total(own, "draft_s") / drafted
    target_tokens = total(rows[target], "num_tokens")
    target_token_s = total(rows[target], "wall_s") / target_tokens
    answer_share = total(rows[target], "answer_tokens") / target_tokens
    segment_tokens = drafted / sum(segments)
    speculated_s = drafted_token_s + verified_token_s + verified_segment_s / segment_tokens
    ideal_token_s = (1 - answer_share) * speculated_s + answer_share * target_token_s
    return Costs(
        drafted_token_s=drafted_token_s,
        verified_token_s=verified_token_s,
        verified_segment_s=verified_segment_s,
        target_token_s=target_token_s,
        segment_tokens=segment_tokens,
        answer_share=answer_share,
        limit_speedup=target_token_s / ideal_token_s,
        measured_on=(drafting, target),
    )


def split_seconds(rows: Sequence[Row], costs: Costs) -> dict[str, float]:
    """Splits the seconds of a method into those that the limit allows for (the first and `answer`) and lost ones."""
    drafted = total(rows, "drafted_tokens")
    rejected_share = 1 - total(rows, "draft_tokens") / drafted if drafted else 0.0
    speculated_s = total(rows, "draft_s") + total(rows, "verify_s") + total(rows, "probe_s")
    # Where the rule left all of the reasoning to the target, the answer is not timed separately.
    answer_s = min(total(rows, "answer_tokens") * costs.target_token_s, total(rows, "rewrite_s"))
    return {
        "accepted drafts": speculated_s * (1 - rejected_share),
        "rejected drafts": speculated_s * rejected_share,
        "decoded by the target": total(rows, "rewrite_s") - answer_s,
        "answer": answer_s,
        "overhead": total(rows, "wall_s") - speculated_s - total(rows, "rewrite_s"),
    }


def drafting_methods(rows: Mapping[str, Sequence[Row]]) -> list[str]:
    """Returns the methods that judged drafted segments."""
    return [name for name, own in rows.items() if any(row.judged for row in own)]


def verifying_methods(rows: Mapping[str, Sequence[Row]]) -> list[str]:
    """Returns those that verify each segment in one target pass, as the limit assumes.

    The semantic rule comes first, and each rule without optimizations comes before the same rule with some.
    """
    order = [name for name, kind in METHODS.items() if kind.verifies]
    judged = [name for name in drafting_methods(rows) if split_name(name)[0] in order]
    return sorted(judged, key=lambda name: (order.index(split_name(name)[0]), "+" in name))


def fit_segments(
    segments: Sequence[float], tokens: Sequence[float], seconds: Sequence[float]
) -> tuple[float, float]:
    """Fits seconds per segment and per token by least squares; neither is below 0.

    Where the two cannot be told apart (one request, or equal lengths), all seconds are attributed to the tokens.
    """
    inputs = np.column_stack([segments, tokens])
    per_segment, per_token = map(float, np.linalg.lstsq(inputs, np.asarray(seconds))[0])
    if np.linalg.matrix_rank(inputs) < 2 or min(per_segment, per_token) < 0:
        if per_token < 0 <= per_segment:
            return sum(seconds) / sum(segments), 0.0
        return 0.0, sum(seconds) / sum(tokens)
    return per_segment, per_token


def total(rows: Sequence[Row], field: str) -> float:
    """Sums a field over rows."""
    return float(sum(getattr(row, field) for row in rows))


def _faster_target(rows: Mapping[str, Sequence[Row]]) -> str | None:
    present = [name for name in TARGETS if name in rows and total(rows[name], "num_tokens")]
    return min(present, key=lambda name: total(rows[name], "wall_s"), default=None)
