"""The judge of the bundled demo: reads every step back to its meaning."""

from __future__ import annotations

from collections.abc import Hashable, Sequence


class ExactJudge:
    """Reads steps of the bundled demo's grammar. Exact; what it cannot read equals only its own text.

    Whether a step also ends the thinking is no part of its meaning: the same step with and without `</think>` says
    the same, and a step too many or too few shows at the next segment.
    """

    name = "exact"
    identity = ""

    def keys(self, problem: str, context: str, segments: Sequence[str]) -> list[Hashable]:  # noqa: ARG002
        from semanticspec.demo.grammar import read_step

        return [read_step(text) or text.strip() for text in segments]
