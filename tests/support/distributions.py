"""Distributions as tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from semanticspec.distributions import Distribution, Distributions


def dense(distributions: Distributions | None, size: int) -> Tensor:
    """Returns `[positions, size]`, float32."""
    assert distributions is not None
    return torch.stack([torch.from_numpy(row.dense(size)) for row in distributions]).float()


def sparse(rows: Sequence[Sequence[float]] | Tensor) -> list[Distribution]:
    """Makes distributions of dense rows."""
    return [Distribution.of_dense(row) for row in rows]
