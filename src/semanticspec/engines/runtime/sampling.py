"""Sampling: temperature, nucleus truncation and log-probabilities, without sorting the vocabulary."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semanticspec.distributions import Distribution, Ids
from semanticspec.errors import EngineError
from semanticspec.records import Sampling

Host = NDArray[np.float64]

# The nucleus is looked for among this many top tokens, which nearly always suffice, then among more.
_NUM_CANDIDATES = 64
_GROWTH = 8
# The k largest logits lie in the k blocks with the largest maxima, which take a fraction of the time of a sort.
_BLOCK = 32
# Logits are processed in chunks of rows. On a CPU, a chunk of this many values stays in its cache.
_CHUNK_VALUES = {"cpu": 2**19}
_MAX_CHUNK_VALUES = 2**24


@dataclass(frozen=True, slots=True, eq=False)
class Position:
    """What a token is drawn from.

    Attributes:
        distribution: under the sampling settings.
        temperature: 1 when greedy.
        log_mass: logarithm of the sum of exp((logit - largest logit) / temperature) over the distribution's tokens.
        log_normalizer: the same over all tokens, without temperature.
    """

    distribution: Distribution
    temperature: float
    log_mass: float
    log_normalizer: float

    def draw(self, uniform: float) -> tuple[int, float]:
        """Returns the token that a uniform number draws, and its raw log-probability."""
        place = self.distribution.place_of(uniform)
        below = self.temperature * (math.log(self.distribution.probabilities[place]) + self.log_mass)
        return int(self.distribution.token_ids[place]), below - self.log_normalizer


class Sampler:
    """Computes the distributions that tokens are drawn from. They are drawn by inverting the CDF over token ids."""

    def __init__(self, sampling: Sampling) -> None:
        self._greedy = sampling.temperature == 0
        self._temperature = float(sampling.temperature) or 1.0
        self._top_p = sampling.top_p

    def positions(self, logits: Tensor) -> list[Position]:
        """Returns what raw logits `[positions, vocabulary]` say at each position.

        Raises:
            EngineError: The logits are NaN.
        """
        return [position for chunk in chunks(logits) for position in self._of_chunk(chunk)]

    def _of_chunk(self, logits: Tensor) -> list[Position]:
        largest = logits.amax(-1, keepdim=True)
        log_normalizers = log_normalizer(logits, largest)
        if self._greedy:
            table = to_host(argmax(logits)[:, None], log_normalizers)
            return [
                Position(Distribution(np.array([int(token_id)]), np.ones(1)), 1.0, 0.0, log_sum)
                for token_id, log_sum in table.tolist()
            ]
        log_masses = log_normalizers
        if self._temperature != 1:
            log_masses = log_normalizer(logits, largest, self._temperature)
        sums = torch.cat((log_masses, log_normalizers), 1)
        if self._top_p < 1:
            return self._nuclei(logits, sums, _NUM_CANDIDATES)
        rows = (logits / self._temperature).softmax(-1).cpu()
        ids = _all_ids(logits.shape[-1])
        return [
            Position(Distribution(ids, row), self._temperature, *both)
            for row, both in zip(rows.numpy(), to_host(sums).tolist(), strict=True)
        ]

    def _nuclei(self, logits: Tensor, sums: Tensor, num_candidates: int) -> list[Position]:
        """Finds the nuclei: the smallest sets of probability top_p.

        Args:
            logits: `[rows, vocabulary]`.
            sums: `log_mass` of the whole vocabulary and `log_normalizer`, `[rows, 2]`.
            num_candidates: number of top tokens to look at.
        """
        values, ids = _largest(logits, num_candidates)
        table = to_host(sums, values, ids)
        log_sums, log_normalizers = table[:, :1], table[:, 1]
        num_values = values.shape[1]
        token_ids = table[:, 2 + num_values :].astype(np.int64)
        below = table[:, 2 : 2 + num_values] - table[:, 2:3]
        probabilities = np.exp(below / self._temperature - log_sums)
        cumulative = probabilities.cumsum(1)
        incomplete = cumulative[:, -1] < self._top_p if num_values < logits.shape[-1] else np.zeros(0, bool)
        outside = cumulative - probabilities >= self._top_p
        probabilities[outside] = 0.0
        width = num_values - int(outside.all(0).sum())
        masses = probabilities.sum(1, keepdims=True)
        order = token_ids[:, :width].argsort(1)
        token_ids = np.take_along_axis(token_ids, order, 1)
        probabilities = np.take_along_axis(probabilities / masses, order, 1)
        sums_of_nuclei = np.stack(((log_sums + np.log(masses))[:, 0], log_normalizers), 1)
        positions = [
            Position(Distribution(ids_of_row, row), self._temperature, *both)
            for ids_of_row, row, both in zip(token_ids, probabilities, sums_of_nuclei.tolist(), strict=True)
        ]
        if incomplete.any():
            rows = torch.from_numpy(incomplete).to(logits.device)
            larger = self._nuclei(logits[rows], sums[rows], _GROWTH * num_candidates)
            for index, position in zip(incomplete.nonzero()[0], larger, strict=True):
                positions[index] = position
        return positions


def chunks(logits: Tensor) -> Iterator[Tensor]:
    """Yields raw logits in float32, some rows at a time."""
    size = _CHUNK_VALUES.get(logits.device.type, _MAX_CHUNK_VALUES)
    num_rows = max(1, size // logits.shape[-1])
    for start in range(0, len(logits), num_rows):
        yield logits[start : start + num_rows].float()


def argmax(logits: Tensor) -> Tensor:
    """Returns the first of the largest logits of each row, `[rows]`."""
    if logits.device.type == "cpu":  # numpy's argmax is vectorized, torch's takes 30 times as long
        return torch.from_numpy(logits.numpy().argmax(-1))
    return logits.argmax(-1)


def log_normalizer(logits: Tensor, largest: Tensor, temperature: float = 1.0) -> Tensor:
    """Returns the logarithm of the sum of exp((logit - largest) / temperature) of each row, `[rows, 1]`."""
    below = logits - largest
    if temperature != 1:
        below /= temperature
    return below.exp_().sum(-1, keepdim=True).log_()


def to_host(*columns: Tensor) -> Host:
    """Copies columns of equal length to the CPU at once, as float64.

    Raises:
        EngineError: One of the numbers is NaN.
    """
    table: Host = torch.cat([column.float() for column in columns], 1).cpu().double().numpy()
    if np.isnan(table).any():
        raise EngineError("the model's logits are NaN; load it with dtype bfloat16 or float32")
    return table


def _largest(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Returns the largest logits of each row and their ids, highest first; the whole row if it is short."""
    size = logits.shape[-1]
    if 2 * _BLOCK * count > size:
        values, ids = logits.sort(dim=-1, descending=True, stable=True)
        return values, ids
    padded = (
        torch.nn.functional.pad(logits, (0, -size % _BLOCK), value=-torch.inf) if size % _BLOCK else logits
    )
    blocks = padded.view(len(logits), -1, _BLOCK)
    best = blocks.amax(-1).topk(count, sorted=False).indices
    values, places = blocks.gather(1, best[..., None].expand(-1, -1, _BLOCK)).flatten(1).topk(count)
    return values, best.gather(1, places // _BLOCK) * _BLOCK + places % _BLOCK


@lru_cache(maxsize=4)
def _all_ids(size: int) -> Ids:
    return np.arange(size)
