"""From logits to tokens: the sampling settings in force, and one uniform number per token."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers.generation import TemperatureLogitsWarper, TopPLogitsWarper

from semanticspec.records import Sampling

# A nucleus is looked for among so many of the most probable tokens first: sorting a vocabulary of 150,000 takes longer
# on a CPU than all the rest of sampling, and a nucleus seldom holds more than a few dozen.
_CANDIDATES = 1024


class Sampler:
    """Draws tokens by inverting the cumulative distribution, in the order of token ids.

    Temperature and nucleus are transformers' own warpers, left out where they would change nothing, the nucleus with a
    short cut for large vocabularies.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._greedy = sampling.temperature == 0
        self._warpers: list[Callable[[Tensor, Tensor], Tensor]] = []
        if not self._greedy and sampling.temperature != 1:
            self._warpers.append(TemperatureLogitsWarper(float(sampling.temperature)))
        if not self._greedy and sampling.top_p < 1:
            self._warpers.append(Nucleus(sampling.top_p))

    def probabilities(self, logits: Tensor) -> Tensor:
        """The distribution tokens are drawn from, `[rows, vocabulary]`, float32; one-hot when greedy."""
        if self._greedy:
            return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
        for warp in self._warpers:
            logits = warp(logits, logits)
        return logits.softmax(-1)

    def draw(
        self, logits: Tensor, uniforms: list[float], keep_probabilities: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Draws one token for every row.

        Args:
            logits: `[rows, vocabulary]`, float32.
            uniforms: one number in [0, 1] per row.

        Returns:
            Token ids `[rows, 1]`, int64, and, if wanted, the probabilities they were drawn with.
        """
        if self._greedy:
            return logits.argmax(-1, keepdim=True), self.probabilities(logits) if keep_probabilities else None
        if not keep_probabilities and (found := self._candidates(logits)) is not None:
            token_ids, kept = found
            return token_ids.gather(-1, _invert(kept.softmax(-1), uniforms)), None
        probabilities = self.probabilities(logits)
        token_ids = _invert(probabilities, uniforms)
        return token_ids, probabilities if keep_probabilities else None

    def _candidates(self, logits: Tensor) -> tuple[Tensor, Tensor] | None:
        """Ids, ascending, and logits of all tokens that can be drawn; None = all of the vocabulary, for all we know."""
        if not self._warpers or not isinstance(nucleus := self._warpers[-1], Nucleus):
            return None
        for warp in self._warpers[:-1]:
            logits = warp(logits, logits)
        found = nucleus.candidates(logits)
        if found is None:
            return None
        token_ids, order = found[0].sort(-1)
        return token_ids, found[1].gather(-1, order)


class Nucleus:
    """transformers' `TopPLogitsWarper`, up to the rounding of sums, without sorting what is far outside."""

    def __init__(self, top_p: float) -> None:
        self._top_p = top_p
        self._exact: Callable[[Tensor, Tensor], Tensor] = TopPLogitsWarper(top_p)

    def __call__(self, token_ids: Tensor, logits: Tensor) -> Tensor:
        """Logits `[rows, vocabulary]` with all outside the smallest set of mass `top_p` at minus infinity."""
        found = self.candidates(logits)
        if found is None:
            return self._exact(token_ids, logits)
        return torch.full_like(logits, -torch.inf).scatter_(-1, *found)

    def candidates(self, logits: Tensor) -> tuple[Tensor, Tensor] | None:
        """Ids and logits of the most probable tokens, `[rows, candidates]`; minus infinity outside the nucleus.

        None if the vocabulary is small, or some row's nucleus may reach beyond them.
        """
        if logits.shape[-1] < 8 * _CANDIDATES:
            return None
        best, indices = logits.topk(_CANDIDATES, dim=-1)  # highest first
        probabilities = (best - logits.logsumexp(-1, keepdim=True)).exp()
        before = probabilities.cumsum(-1) - probabilities
        if bool((before[:, -1] < self._top_p).any()):
            return None
        return indices, best.masked_fill(before >= self._top_p, -torch.inf)


def _invert(probabilities: Tensor, uniforms: list[float]) -> Tensor:
    """First token whose cumulative probability exceeds the uniform number, `[rows, 1]`.

    A token of probability zero adds no step to the cumulative sum, so it is never the first to exceed, as
    long as the threshold stays below the total: the largest number below 1 that keeps it there after rounding
    is one minus twice the unit roundoff. Sums are in double precision where the device has it.
    """
    dtype = torch.float32 if probabilities.device.type == "mps" else torch.float64
    below_one = 1.0 - torch.finfo(dtype).eps
    cumulative = probabilities.cumsum(-1, dtype=dtype)
    total = cumulative[:, -1:]
    if len(uniforms) == 1:
        threshold = total * min(uniforms[0], below_one)
    else:
        column = [[min(uniform, below_one)] for uniform in uniforms]
        threshold = total * torch.tensor(column, dtype=dtype, device=probabilities.device)
    found = torch.searchsorted(cumulative, threshold, right=True)
    # Only logits that are no numbers lead past the end; their log-probabilities give them away later.
    return found.clamp_(max=probabilities.shape[-1] - 1)
