"""The judge `exact`: it parses the steps of the bundled demo's grammar and compares their meanings."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from semanticspec.demo.grammar import read_step


class ExactJudge:
    """Groups steps by their parsed meaning; text outside the grammar equals only the same text.

    A step keeps its meaning when `</think>` follows it: a solution that ends too early or too late differs in its
    next segment. Implements `semanticspec.training.labels.judges.Judge`.
    """

    name = "exact"
    identity = ""

    def keys(self, problem: str, context: str, segments: Sequence[str]) -> list[Hashable]:  # noqa: ARG002
        """Returns one key per segment; segments with equal keys mean the same."""
        return [read_step(text) or text.strip() for text in segments]
