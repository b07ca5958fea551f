"""Sampling: temperature, nucleus truncation, and drawing tokens with given uniform numbers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers.generation import TemperatureLogitsWarper, TopPLogitsWarper

from semanticspec.records import Sampling

# The nucleus is first looked for among this many top tokens. Sorting a vocabulary of 150,000 on a CPU takes longer than
# the rest of sampling, and a nucleus rarely has more than a few dozen tokens.
_NUM_CANDIDATES = 1024


class Sampler:
    """Draws tokens by inverting the cumulative distribution over token ids.

    Uses the temperature and top-p warpers of transformers, with a shortcut for the nucleus of large vocabularies.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._greedy = sampling.temperature == 0
        self._warpers: list[Callable[[Tensor, Tensor], Tensor]] = []
        if not self._greedy and sampling.temperature != 1:
            self._warpers.append(TemperatureLogitsWarper(float(sampling.temperature)))
        if not self._greedy and sampling.top_p < 1:
            self._warpers.append(Nucleus(sampling.top_p))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Returns the sampling distribution `[rows, vocabulary]`, float32; one-hot when greedy."""
        if self._greedy:
            return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
        for warp in self._warpers:
            logits = warp(logits, logits)
        return logits.softmax(-1)

    def draw(
        self, logits: Tensor, uniforms: list[float], keep_probabilities: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Draws one token per row.

        Args:
            logits: `[rows, vocabulary]`, float32.
            uniforms: one number in [0, 1) per row.
            keep_probabilities: also return the sampling distribution.

        Returns:
            Token ids `[rows, 1]`, int64, and the distribution `[rows, vocabulary]` or None.
        """
        if self._greedy:
            return logits.argmax(-1, keepdim=True), self.probabilities(logits) if keep_probabilities else None
        if not keep_probabilities and (found := self._candidates(logits)) is not None:
            token_ids, kept = found
            return token_ids.gather(-1, _invert_cdf(kept.softmax(-1), uniforms)), None
        probabilities = self.probabilities(logits)
        token_ids = _invert_cdf(probabilities, uniforms)
        return token_ids, probabilities if keep_probabilities else None

    def _candidates(self, logits: Tensor) -> tuple[Tensor, Tensor] | None:
        """Returns ids (ascending) and warped logits of a superset of the nucleus; None = the whole vocabulary."""
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
    """Top-p truncation as in transformers' `TopPLogitsWarper`, up to rounding, without sorting the whole vocabulary."""

    def __init__(self, top_p: float) -> None:
        self._top_p = top_p
        self._exact: Callable[[Tensor, Tensor], Tensor] = TopPLogitsWarper(top_p)

    def __call__(self, token_ids: Tensor, logits: Tensor) -> Tensor:
        """Sets logits `[rows, vocabulary]` outside the smallest set of probability `top_p` to minus infinity."""
        found = self.candidates(logits)
        if found is None:
            return self._exact(token_ids, logits)
        return torch.full_like(logits, -torch.inf).scatter_(-1, *found)

    def candidates(self, logits: Tensor) -> tuple[Tensor, Tensor] | None:
        """Returns ids and logits of the top tokens `[rows, candidates]`, minus infinity outside the nucleus.

        Returns None if the vocabulary is small, or if some row's nucleus may exceed the candidates.
        """
        if logits.shape[-1] < 8 * _NUM_CANDIDATES:
            return None
        top, indices = logits.topk(_NUM_CANDIDATES, dim=-1)  # highest first
        probabilities = (top - logits.logsumexp(-1, keepdim=True)).exp()
        before = probabilities.cumsum(-1) - probabilities
        if bool((before[:, -1] < self._top_p).any()):
            return None
        return indices, top.masked_fill(before >= self._top_p, -torch.inf)


def _invert_cdf(probabilities: Tensor, uniforms: list[float]) -> Tensor:
    """Returns the first token whose cumulative probability exceeds the uniform number, `[rows, 1]`.

    Tokens of probability zero add nothing to the cumulative sum, so they are never drawn as long as the threshold is
    below the total. Thresholds are clamped to 1 - eps, the largest factor for which this holds after rounding. Sums are
    in float64 where the device supports it.
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
    # NaN logits lead past the end; `check_logprobs` reports them later.
    return found.clamp_(max=probabilities.shape[-1] - 1)
