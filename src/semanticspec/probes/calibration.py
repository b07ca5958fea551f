"""The map from a probe's logits to probabilities; `semanticspec.training.calibrate` fits it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from semanticspec.errors import ProbeError

Kind = Literal["none", "platt", "isotonic"]


@dataclass(frozen=True)
class Calibration:
    """An increasing map from logits to probabilities.

    Attributes:
        kind: `none` (sigmoid), `platt` (sigmoid of a line), or `isotonic` (piecewise linear).
        values: float32. `platt`: `[2]`, slope and offset of the logit. `isotonic`: `[2, points]`, logits and
            probabilities, linear in between, constant outside. `none`: `[0]`.
    """

    kind: Kind
    values: Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.values.shape)
        fits = {
            "none": shape == (0,),
            "platt": shape == (2,),
            "isotonic": len(shape) == 2 and shape[0] == 2 and shape[1] >= 1,
        }
        if self.kind not in fits or not fits[self.kind] or not bool(torch.isfinite(self.values).all()):
            raise ProbeError(f"a calibration of kind {self.kind!r} cannot have values of shape {shape}")

    def apply(self, logits: Tensor) -> Tensor:
        """Returns probabilities `[rows]` of logits `[rows]`, on the logits' device."""
        values = self.values.to(logits.device)
        if self.kind == "none":
            return torch.sigmoid(logits)
        if self.kind == "platt":
            return torch.sigmoid(values[0] * logits + values[1])
        return _interpolate(logits, values[0], values[1])


NO_CALIBRATION = Calibration("none", torch.zeros(0))


def _interpolate(places: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Linear interpolation at `places` between points (x, y), x increasing; constant outside."""
    if len(x) == 1:
        return y.expand_as(places).clone()
    right = torch.searchsorted(x, places.contiguous()).clamp(1, len(x) - 1)
    left = right - 1
    share = ((places - x[left]) / (x[right] - x[left]).clamp_min(1e-12)).clamp(0, 1)
    return y[left] + share * (y[right] - y[left])
