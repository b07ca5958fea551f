"""Probes: small networks that read a model's semantic probability off its own pass over a segment.

One stage a file: `collect` (what both models say in many contexts), `label` (which of it means the same),
`train` and `evaluate`; `probe` is what decoding loads and asks. Importing this package loads no torch; the
names below load it when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from semanticspec.probes.card import ProbeCard

if TYPE_CHECKING:
    from semanticspec.probes.probe import Probe

__all__ = ["Probe", "ProbeCard"]


def __getattr__(name: str) -> object:
    if name == "Probe":
        from semanticspec.probes.probe import Probe

        return Probe
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
