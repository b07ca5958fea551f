"""From states at the predicting positions to a reading's `pooled_state`: all at once, or token by token."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from semanticspec.engines.base import Pooling


def pooled(states: Tensor, pooling: Pooling) -> Tensor:
    """The pooled state of `[tokens, hidden]`: `[hidden]`, or all of them with `none`; float32."""
    if pooling == "mean":
        return states.float().mean(0)
    return (states[-1] if pooling == "last" else states).float()


class StatePool(Protocol):
    """Pools the states of rows that are written side by side, one position at a time."""

    def add(self, states: Tensor) -> None:
        """Takes in the rows' states at the next predicting position, `[rows, hidden]`."""
        ...

    def of_row(self, index: int) -> Tensor:
        """What `pooled` gives for a row's states so far; may share memory with what is still written."""
        ...

    def select_rows(self, rows: Tensor) -> None:
        """Keeps the rows with these indices, in this order."""
        ...


def new_pool(pooling: Pooling) -> StatePool:
    """An empty pool."""
    pools: dict[Pooling, type[StatePool]] = {"mean": _Mean, "last": _Last, "none": _Everything}
    return pools[pooling]()


class _Mean:
    """A running sum in float32."""

    def __init__(self) -> None:
        self._sum = torch.zeros(0)
        self._count = 0

    def add(self, states: Tensor) -> None:
        if self._count == 0:
            self._sum = torch.zeros(states.shape, dtype=torch.float32, device=states.device)
        self._sum += states
        self._count += 1

    def of_row(self, index: int) -> Tensor:
        return self._sum[index] / self._count

    def select_rows(self, rows: Tensor) -> None:
        self._sum = self._sum[rows]


class _Last:
    """The latest states only."""

    def __init__(self) -> None:
        self._states = torch.zeros(0)

    def add(self, states: Tensor) -> None:
        self._states = states

    def of_row(self, index: int) -> Tensor:
        return self._states[index].float()

    def select_rows(self, rows: Tensor) -> None:
        self._states = self._states[rows]


class _Everything:
    """One tensor a position."""

    def __init__(self) -> None:
        self._states: list[Tensor] = []

    def add(self, states: Tensor) -> None:
        self._states.append(states)

    def of_row(self, index: int) -> Tensor:
        return torch.stack([states[index] for states in self._states]).float()

    def select_rows(self, rows: Tensor) -> None:
        self._states = [states[rows] for states in self._states]
