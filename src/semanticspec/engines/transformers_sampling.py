"""From logits to tokens: the sampling settings in force, and one uniform number per token."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers.generation import TemperatureLogitsWarper, TopPLogitsWarper

from semanticspec.records import Sampling


class Sampler:
    """Draws tokens by inverting the cumulative distribution, in the order of token ids.

    Temperature and nucleus are transformers' own warpers, left out where they would change nothing.
    """

    def __init__(self, sampling: Sampling) -> None:
        self._greedy = sampling.temperature == 0
        self._warpers: list[Callable[[Tensor, Tensor], Tensor]] = []
        if not self._greedy and sampling.temperature != 1:
            self._warpers.append(TemperatureLogitsWarper(float(sampling.temperature)))
        if not self._greedy and sampling.top_p < 1:
            self._warpers.append(TopPLogitsWarper(sampling.top_p))

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
        probabilities = self.probabilities(logits)
        token_ids = _invert(probabilities, uniforms)
        return token_ids, probabilities if keep_probabilities else None


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
