"""Distributions of engines as dense rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def dense_rows(distributions: Iterable[Any] | None, size: int) -> Tensor:
    """Returns distributions, sparse or dense, as `[tokens, size]` in float32."""
    assert distributions is not None
    rows = [torch.as_tensor(row.dense(size) if hasattr(row, "dense") else row) for row in distributions]
    return torch.stack(rows).float()
