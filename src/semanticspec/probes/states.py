"""States of many segments: one each, pooled by the engine, or all those of every segment's predicting positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from semanticspec.errors import ProbeError
from semanticspec.probes.card import ProbePooling

Rows = Tensor | Sequence[int] | slice


@dataclass(frozen=True, eq=False)
class Ragged:
    """Segments of unlike length, one after the other.

    Attributes:
        values: `[total positions, hidden]`, float32.
        lengths: `[rows]`, int64, on the same device: how many of them are each segment's.
    """

    values: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, parts: Sequence[Tensor], hidden_size: int) -> Ragged:
        """Rows of `[positions, hidden]` each."""
        lengths = torch.tensor([len(part) for part in parts], dtype=torch.int64)
        values = torch.cat(list(parts)) if parts else torch.zeros(0, hidden_size)
        return cls(values, lengths.to(values.device))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, rows: Rows) -> Ragged:
        """The rows of a bool mask, of indices (in their order), or of a slice."""
        device = self.lengths.device
        chosen = torch.arange(len(self), device=device)[cast(Tensor, rows)]
        lengths = self.lengths[chosen]
        before = self.lengths.cumsum(0) - self.lengths  # where each row begins, here and in the result
        shift = before[chosen] - (lengths.cumsum(0) - lengths)
        places = torch.arange(int(lengths.sum()), device=device) + shift.repeat_interleave(lengths)
        return Ragged(self.values[places], lengths)

    def to(self, device: torch.device, dtype: torch.dtype) -> Ragged:
        """On another device, the values in another dtype."""
        return Ragged(self.values.to(device, dtype), self.lengths.to(device))

    def mean(self) -> Tensor:
        """`[rows, hidden]`."""
        return self._weighted(torch.ones_like(self.values[:, 0]))

    def last(self) -> Tensor:
        """The last position of every row, `[rows, hidden]`."""
        return self.values[self.lengths.cumsum(0) - 1]

    def attended(self, scores: Tensor) -> Tensor:
        """The means `[rows, hidden]` weighted with the softmax over each row of scores `[total positions]`."""
        highest = torch.full((len(self),), -torch.inf, device=scores.device)
        highest = highest.scatter_reduce(0, self._owners, scores.detach(), "amax")
        return self._weighted((scores - highest[self._owners]).exp())

    @property
    def _owners(self) -> Tensor:
        """The row of every position."""
        return torch.arange(len(self), device=self.lengths.device).repeat_interleave(self.lengths)

    def _weighted(self, weights: Tensor) -> Tensor:
        owners = self._owners
        sums = self.values.new_zeros(len(self), self.values.shape[1])
        sums = sums.index_add(0, owners, weights[:, None] * self.values)
        totals = self.values.new_zeros(len(self)).index_add(0, owners, weights)
        return sums / totals[:, None]


States = Tensor | Ragged
"""Pooled states `[rows, hidden]`, or all states of every row."""


@dataclass(frozen=True, eq=False)
class RaggedInputs:
    """What an attending network reads: all states of every row, and features `[rows, features]`, float32."""

    states: Ragged
    features: Tensor

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, rows: Tensor) -> RaggedInputs:
        return RaggedInputs(self.states[rows], self.features[rows])


Inputs = Tensor | RaggedInputs
"""Of a probe's network: state first, then features, `[rows, inputs]`; or the states not pooled yet."""


def concatenated(parts: Sequence[States]) -> States:
    """One after the other; all of one kind, at least one."""
    ragged = [part for part in parts if isinstance(part, Ragged)]
    if not ragged:
        return torch.cat([part for part in parts if isinstance(part, Tensor)])
    return Ragged(torch.cat([part.values for part in ragged]), torch.cat([part.lengths for part in ragged]))


def hidden_size_of(states: States) -> int:
    """How many values a state has."""
    return int((states.values if isinstance(states, Ragged) else states).shape[1])


def joined(states: States | None, pooling: ProbePooling, features: Tensor) -> Inputs:
    """A network's inputs.

    Args:
        states: None for a probe that reads none. Pooled ones are taken as they are.
        features: `[rows, features]`, maybe none.

    Raises:
        ProbeError: pooled states for a network that pools itself.
    """
    if states is None:
        return features
    if pooling == "attention":
        if not isinstance(states, Ragged):
            raise ProbeError(
                "a probe with attention reads every state of a segment, and these are pooled; collect with "
                "--pooling none, or load the engine with StateSpec(pooling='none')"
            )
        return RaggedInputs(states, features)
    if isinstance(states, Ragged):
        states = states.mean() if pooling == "mean" else states.last()
    return torch.cat([states, features], dim=1)
