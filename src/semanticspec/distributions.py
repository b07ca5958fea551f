"""Sampling distributions over a vocabulary, stored as the tokens that can be drawn. Importing this imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ids = NDArray[np.int64]
Probabilities = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Distribution:
    """The distribution that one token is drawn from, after temperature and top-p. On the CPU.

    Tokens that are not listed have probability 0. After top-p a few dozen tokens are left of a whole vocabulary.

    Attributes:
        token_ids: ascending, `[tokens]`.
        probabilities: of these tokens, `[tokens]`. They sum to 1, or to less after translation to another vocabulary.
    """

    token_ids: Ids
    probabilities: Probabilities

    @classmethod
    def of_dense(cls, probabilities: ArrayLike) -> Distribution:
        """Makes a distribution of one probability per token id, such as a list or a tensor on the CPU."""
        row = np.asarray(probabilities, dtype=np.float64)
        (token_ids,) = row.nonzero()
        return cls(token_ids, row[token_ids])

    def dense(self, vocabulary_size: int) -> Probabilities:
        """Returns one probability per token id."""
        row = np.zeros(vocabulary_size)
        row[self.token_ids] = self.probabilities
        return row

    def of(self, token_ids: Any) -> Probabilities:
        """Returns the probabilities of one token or of many, in the shape of `token_ids`."""
        if not len(self.token_ids):
            return np.zeros(np.shape(token_ids))
        places = np.minimum(np.searchsorted(self.token_ids, token_ids), len(self.token_ids) - 1)
        return np.where(self.token_ids[places] == token_ids, self.probabilities[places], 0.0)

    def place_of(self, uniform: float) -> int:
        """Returns the place in `token_ids` of the token that a uniform number in [0, 1) draws.

        It is the first token whose cumulative probability exceeds the number; the probabilities are normalized first.
        Tokens of probability 0 are never drawn.
        """
        cumulative = self.probabilities.cumsum(dtype=np.float64)
        place = int(cumulative.searchsorted(uniform * cumulative[-1], side="right"))
        if place == len(cumulative):  # rounding at the upper end
            place = int(self.probabilities.nonzero()[0][-1])
        return place

    def draw(self, uniform: float) -> int:
        """Returns the token that a uniform number draws, see `place_of`."""
        return int(self.token_ids[self.place_of(uniform)])

    def residual(self, other: Distribution) -> Distribution:
        """Returns what this distribution has more than `other`: the positive part of the difference, not normalized.

        Returns this distribution where nothing is left: the two are then equal up to rounding.
        """
        left = np.maximum(self.probabilities.astype(np.float64) - other.of(self.token_ids), 0.0)
        return Distribution(self.token_ids, left) if left.any() else self

    def translated(self, sink_ids: Ids) -> Distribution:
        """Returns the distribution over the tokens of another vocabulary.

        Args:
            sink_ids: the token there of each token here; -1, or beyond the end, if there is none. The probability of
                such tokens is lost.
        """
        known = self.token_ids[: self.token_ids.searchsorted(len(sink_ids))]
        moved = sink_ids[known]
        if len(moved) == len(self.token_ids) and (moved == self.token_ids).all():
            return self
        kept = moved >= 0
        token_ids, places = np.unique(moved[kept], return_inverse=True)
        probabilities = np.zeros(len(token_ids))
        np.add.at(probabilities, places, self.probabilities[: len(moved)][kept])
        return Distribution(token_ids, probabilities)


Distributions = Sequence[Distribution]
"""Distributions at consecutive positions."""
