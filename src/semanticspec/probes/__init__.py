"""Probes: small networks that estimate a model's semantic probability of a segment from its own forward pass.

This package holds what serving needs; `semanticspec.training` makes probes. Importing it loads no torch.
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
