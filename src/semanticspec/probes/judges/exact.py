"""The judge of the bundled demo: reads every step back to its meaning."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from semanticspec.probes.judges.base import ends_thinking


class ExactJudge:
    """Reads steps of the bundled demo's grammar. Exact; what it cannot read equals only its own text."""

    name = "exact"
    identity = ""

    def keys(self, problem: str, context: str, segments: Sequence[str]) -> list[Hashable]:  # noqa: ARG002
        from semanticspec.demo.grammar import read_step

        return [(read_step(text) or text.strip(), ends_thinking(text)) for text in segments]
