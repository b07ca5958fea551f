"""States of many segments: pooled by the engine, or all states at each segment's predicting positions."""

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
    """Concatenated segments of different lengths.

    Attributes:
        values: `[total positions, hidden]`, float32.
        lengths: `[rows]`, int64, same device: positions of each segment.
    """

    values: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, parts: Sequence[Tensor], hidden_size: int) -> Ragged:
        """Concatenates rows of `[positions, hidden]` each."""
        lengths = torch.tensor([len(part) for part in parts], dtype=torch.int64)
        values = torch.cat(list(parts)) if parts else torch.zeros(0, hidden_size)
        return cls(values, lengths.to(values.device))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, rows: Rows) -> Ragged:
        """Selects rows by a bool mask, by indices (in their order), or by a slice."""
        device = self.lengths.device
        chosen = torch.arange(len(self), device=device)[cast(Tensor, rows)]
        lengths = self.lengths[chosen]
        starts = self.lengths.cumsum(0) - self.lengths
        shift = starts[chosen] - (lengths.cumsum(0) - lengths)
        positions = torch.arange(int(lengths.sum()), device=device) + shift.repeat_interleave(lengths)
        return Ragged(self.values[positions], lengths)

    def to(self, device: torch.device, dtype: torch.dtype) -> Ragged:
        """Moves to a device and converts the values."""
        return Ragged(self.values.to(device, dtype), self.lengths.to(device))

    def mean(self) -> Tensor:
        """The mean of each row, `[rows, hidden]`."""
        return self._weighted_mean(torch.ones_like(self.values[:, 0]))

    def last(self) -> Tensor:
        """The last position of each row, `[rows, hidden]`."""
        return self.values[self.lengths.cumsum(0) - 1]

    def attended(self, scores: Tensor) -> Tensor:
        """Means `[rows, hidden]`, weighted by the softmax over each row of scores `[total positions]`."""
        highest = torch.full((len(self),), -torch.inf, device=scores.device)
        highest = highest.scatter_reduce(0, self._row_of_position, scores.detach(), "amax")
        return self._weighted_mean((scores - highest[self._row_of_position]).exp())

    @property
    def _row_of_position(self) -> Tensor:
        return torch.arange(len(self), device=self.lengths.device).repeat_interleave(self.lengths)

    def _weighted_mean(self, weights: Tensor) -> Tensor:
        row = self._row_of_position
        sums = self.values.new_zeros(len(self), self.values.shape[1])
        sums = sums.index_add(0, row, weights[:, None] * self.values)
        totals = self.values.new_zeros(len(self)).index_add(0, row, weights)
        return sums / totals[:, None]


States = Tensor | Ragged
"""Pooled states `[rows, hidden]`, or all states of every row."""


@dataclass(frozen=True, eq=False)
class RaggedInputs:
    """Inputs of a network with attention: all states of every row, and features `[rows, features]`, float32."""

    states: Ragged
    features: Tensor

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, rows: Tensor) -> RaggedInputs:
        return RaggedInputs(self.states[rows], self.features[rows])


Inputs = Tensor | RaggedInputs
"""Inputs of a probe's network: state, then features, `[rows, inputs]`; or states that are not pooled yet."""


def concatenated(parts: Sequence[States]) -> States:
    """Concatenates states of one kind, at least one."""
    ragged = [part for part in parts if isinstance(part, Ragged)]
    if not ragged:
        return torch.cat([part for part in parts if isinstance(part, Tensor)])
    return Ragged(torch.cat([part.values for part in ragged]), torch.cat([part.lengths for part in ragged]))


def hidden_size_of(states: States) -> int:
    """The size of one state."""
    return int((states.values if isinstance(states, Ragged) else states).shape[1])


def pooled_states(states: States, pooling: ProbePooling) -> Tensor:
    """Returns one state per row, `[rows, hidden]`; states that are pooled already stay as they are.

    Args:
        pooling: mean or last.
    """
    if isinstance(states, Tensor):
        return states
    return states.mean() if pooling == "mean" else states.last()


def joined(
    states: States | None, pooling: ProbePooling, features: Tensor, draft_states: States | None = None
) -> Inputs:
    """Builds a network's inputs: the states, the draft's states, the features. Pools states that are not pooled yet.

    Args:
        states: None for a probe that reads no state.
        features: `[rows, features]`; there may be 0 features.
        draft_states: of the same rows, for a joint probe.

    Raises:
        ProbeError: the states are pooled already, and the network pools them itself.
    """
    if states is None:
        return features
    if pooling == "attention":
        if not isinstance(states, Ragged):
            raise ProbeError(
                "a probe with attention reads every state of a segment, and these states are pooled; collect with "
                "--pooling none, or load the engine with StateSpec(pooling='none')"
            )
        assert draft_states is None, "a joint probe has no attention"
        return RaggedInputs(states, features)
    read = [states] if draft_states is None else [states, draft_states]
    return torch.cat([*(pooled_states(part, pooling) for part in read), features], dim=1)
