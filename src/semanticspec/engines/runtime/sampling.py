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
_CHUNK_VALUES = {"cpu": 2**20}
_MAX_CHUNK_VALUES = 2**24
# Relative error of a sum over the vocabulary in float32.
_ROUNDING = 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class Position:
    """What a token is drawn from. Logarithms of sums are relative to the largest logit.

    Attributes:
        distribution: under the sampling settings.
        temperature: 1 when greedy.
        largest: the largest logit.
        log_mass: logarithm of the sum of exp((logit - largest) / temperature) over the distribution's tokens.
        log_normalizer: the same over all tokens, without temperature.
    """

    distribution: Distribution
    temperature: float
    largest: float
    log_mass: float
    log_normalizer: float

    def draw(self, uniform: float) -> tuple[int, float]:
        """Returns the token that a uniform number draws, and its raw log-probability."""
        place = self.distribution.place_of(uniform)
        below = self.temperature * (math.log(self.distribution.probabilities[place]) + self.log_mass)
        return int(self.distribution.token_ids[place]), below - self.log_normalizer

    def logprob(self, logit: float) -> float:
        """Returns the raw log-probability of a token, given its logit."""
        return logit - self.largest - self.log_normalizer


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
        if self._greedy:
            return self._greedily(logits)
        return self._nuclei(logits) if self._top_p < 1 else self._whole(logits)

    def _greedily(self, logits: Tensor) -> list[Position]:
        one = np.ones(1)
        return [
            Position(Distribution(np.array([int(token_id)]), one), 1.0, largest, 0.0, log_normalizer)
            for chunk in chunks(logits)
            for largest, log_normalizer, token_id in to_host(
                *largest_and_sum(chunk), argmax(chunk)[:, None]
            ).tolist()
        ]

    def _whole(self, logits: Tensor) -> list[Position]:
        positions: list[Position] = []
        ids = _all_ids(logits.shape[-1])
        for chunk in chunks(logits):
            largest, log_normalizers = largest_and_sum(chunk)
            table = to_host(largest, log_sum(chunk, largest, self._temperature), log_normalizers)
            rows = (chunk / self._temperature).softmax(-1).cpu().numpy()
            positions += [
                Position(Distribution(ids, row), self._temperature, *numbers)
                for row, numbers in zip(rows, table.tolist(), strict=True)
            ]
        return positions

    def _nuclei(
        self, logits: Tensor, num_candidates: int = _NUM_CANDIDATES, *, bounds: bool = True
    ) -> list[Position]:
        """Finds the nuclei among the top tokens: the smallest sets of probability top_p.

        With `bounds`, the sum over all tokens at a temperature below 1 is bounded by the one at temperature 1, which
        saves a pass over the vocabulary. Rows where that does not decide which tokens belong to the nucleus, or whose
        nucleus may have more tokens, are processed again.
        """
        bounds = bounds and self._temperature < 1
        columns = [self._columns(chunk, num_candidates, bounds) for chunk in chunks(logits)]
        table = np.concatenate(columns)
        numbers, below, ids = np.split(table, (3, 3 + (table.shape[1] - 3) // 2), axis=1)
        masses = np.exp(below / self._temperature)
        cumulative = masses.cumsum(1)
        least = most = np.exp(numbers[:, 2])
        whole = below.shape[1] == logits.shape[-1]
        if whole:
            least = most = cumulative[:, -1]
        elif bounds:
            rest = np.maximum(most - np.exp(below).sum(1), 0) + _ROUNDING * most
            least = cumulative[:, -1]
            most = least + rest * np.exp(below[:, -1] * (1 / self._temperature - 1))
        inside, surely = (cumulative - masses < self._top_p * total[:, None] for total in (least, most))
        decided = (inside == surely).all(1) & ((cumulative[:, -1] >= self._top_p * most) | whole)
        positions = self._positions(ids.astype(np.int64), np.where(inside, masses, 0), numbers)
        if not decided.all():
            (rows,) = (~decided).nonzero()
            left = logits[torch.from_numpy(rows).to(logits.device)]
            for row, position in zip(
                rows, self._nuclei(left, _GROWTH * num_candidates, bounds=False), strict=True
            ):
                positions[row] = position
        return positions

    def _columns(self, logits: Tensor, num_candidates: int, bounds: bool) -> Host:
        """Returns columns: the largest logit, `log_normalizer`, `log_sum` at the sampling temperature, top logits, ids.

        With `bounds`, the third is `log_normalizer` again. Top logits are relative to the largest one.
        """
        values, ids = top_logits(logits, num_candidates)
        largest = values[:, :1]
        total = log_normalizers = log_sum(logits, largest)
        if self._temperature != 1 and not bounds:
            total = log_sum(logits, largest, self._temperature)
        return to_host(largest, log_normalizers, total, values - largest, ids)

    def _positions(self, token_ids: Ids, masses: Host, numbers: Host) -> list[Position]:
        """Normalizes the masses of tokens, `[rows, tokens]`, highest first and 0 outside the nucleus.

        Args:
            numbers: `largest` and `log_normalizer` of each row come first.
        """
        width = int(masses.any(0).sum())
        order = token_ids[:, :width].argsort(1)
        token_ids = np.take_along_axis(token_ids, order, 1)
        totals = masses.sum(1, keepdims=True)
        probabilities = np.take_along_axis(masses[:, :width] / totals, order, 1)
        log_masses = np.log(totals[:, 0])
        return [
            Position(Distribution(ids, row), self._temperature, largest, log_mass, log_normalizer)
            for ids, row, log_mass, (largest, log_normalizer, _) in zip(
                token_ids, probabilities, log_masses.tolist(), numbers.tolist(), strict=True
            )
        ]


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


def log_sum(logits: Tensor, largest: Tensor, temperature: float = 1.0) -> Tensor:
    """Returns the logarithm of the sum of exp((logit - largest) / temperature) of each row, `[rows, 1]`."""
    below = logits - largest
    if temperature != 1:
        below /= temperature
    return below.exp_().sum(-1, keepdim=True).log_()


def largest_and_sum(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the largest logit of each row and `log_sum`; together they are the logarithm of the normalizer."""
    largest = logits.amax(-1, keepdim=True)
    return largest, log_sum(logits, largest)


def to_host(*columns: Tensor) -> Host:
    """Copies columns of equal length to the CPU at once, as float64.

    Raises:
        EngineError: One of the numbers is NaN.
    """
    table: Host = torch.cat([column.float() for column in columns], 1).cpu().double().numpy()
    if np.isnan(table).any():
        raise EngineError("the model's logits are NaN; load it with dtype bfloat16 or float32")
    return table


def top_logits(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Returns the largest logits of each row and their ids, highest first; all of them if the row is short."""
    size = logits.shape[-1]
    if 2 * _BLOCK * count > size:
        return logits.topk(min(count, size))
    padded = (
        torch.nn.functional.pad(logits, (0, -size % _BLOCK), value=-torch.inf) if size % _BLOCK else logits
    )
    blocks = padded.view(len(logits), _BLOCK, -1)  # strided: `amax` over the middle dimension is the fastest
    best = blocks.amax(1).topk(count, sorted=False).indices
    values, places = blocks.gather(2, best[:, None].expand(-1, _BLOCK, -1)).flatten(1).topk(count)
    return values, places // count * blocks.shape[2] + best.gather(1, places % count)


@lru_cache(maxsize=4)
def _all_ids(size: int) -> Ids:
    return np.arange(size)
