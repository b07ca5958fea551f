"""Pooling of hidden states over the predicting positions: all at once, or position by position."""

from __future__ import annotations

import torch
from torch import Tensor

from semanticspec.engines.base import Pooling


def pooled(states: Tensor, pooling: Pooling) -> Tensor:
    """Pools states `[tokens, hidden]` to `[hidden]`, float32; returns all of them for pooling `none`."""
    if pooling == "mean":
        return states.float().mean(0)
    return (states[-1] if pooling == "last" else states).float()


class StatePool:
    """Pools the states of rows that are decoded together, one position at a time."""

    def __init__(self, pooling: Pooling) -> None:
        self._pooling: Pooling = pooling
        self._num_added = 0
        self._states: list[
            Tensor
        ] = []  # mean: the running sum, float32; last: the last states; none: all states

    def add(self, states: Tensor) -> None:
        """Adds the states of all rows at the next predicting position, `[rows, hidden]`."""
        self._num_added += 1
        if self._pooling == "none":
            self._states.append(states)
        elif self._pooling == "last":
            self._states = [states]
        elif self._states:
            self._states[0] += states
        else:
            self._states = [states.to(torch.float32, copy=True)]

    def row(self, index: int) -> Tensor:
        """Returns what `pooled` gives for one row's states so far."""
        if self._pooling == "mean":
            return self._states[0][index] / self._num_added
        return pooled(torch.stack([states[index] for states in self._states]), self._pooling)

    def select_rows(self, rows: Tensor) -> None:
        """Keeps the rows with these indices, in this order."""
        self._states = [states[rows] for states in self._states]
