"""Builds a score from hidden states and logits at a continuation's positions."""

from __future__ import annotations

import torch
from torch import Tensor

from semanticspec.engines.base import Pooling, position_uniform
from semanticspec.engines.runtime.pooling import pooled
from semanticspec.engines.runtime.requests import ScoreRequest
from semanticspec.engines.runtime.sampling import (
    Position,
    Sampler,
    argmax,
    chunks,
    largest_and_sum,
    to_host,
    top_logits,
)
from semanticspec.records import Score


class ScoreBuilder:
    """Builds the score of one continuation from a few positions at a time, so that logits need not be kept."""

    def __init__(self, request: ScoreRequest, continuation: list[int], pooling: Pooling) -> None:
        self._request = request
        self._pooling: Pooling = pooling
        self._sampler = Sampler(request.sampling) if request.sampling is not None else None
        self._target_ids = [*continuation, 0]  # nothing follows the last token
        self._states: list[Tensor] = []
        self._logprobs: list[float] = []
        self._signals: list[list[float]] = []
        self._positions: list[Position] = []

    def add(self, states: Tensor, logits: Tensor) -> None:
        """Adds the next positions; the first is the last context token, the last is the last continuation token.

        Args:
            states: `[positions, hidden]`; kept until the score is built.
            logits: `[positions, vocabulary]`, not kept.

        Raises:
            EngineError: The logits are NaN.
        """
        self._states.append(states)
        start, end = len(self._logprobs), len(self._logprobs) + len(logits)
        targets = torch.tensor(self._target_ids[start:end], device=logits.device)
        chosen = logits.gather(-1, targets[:, None]).float()
        if self._sampler is not None and self._request.distributions:
            positions = self._sampler.positions(logits)
            self._positions += positions
            self._logprobs += map(Position.logprob, positions, to_host(chosen)[:, 0].tolist())
        else:
            parts = torch.cat([torch.cat(largest_and_sum(chunk), 1) for chunk in chunks(logits)])
            self._logprobs += to_host(chosen - parts[:, :1] - parts[:, 1:])[:, 0].tolist()
            if self._sampler is not None and end == len(self._target_ids):
                self._positions = self._sampler.positions(logits[-1:])
        if self._request.signals:
            for chunk in chunks(logits):
                own, chosen = chosen[: len(chunk)], chosen[len(chunk) :]
                ranks = (chunk > own).sum(-1, keepdim=True) + 1
                self._signals += to_host(
                    ranks, argmax(chunk)[:, None], entropy(chunk), margin(chunk)
                ).tolist()

    def build(self) -> Score:
        """Returns the score, once all positions have been added."""
        assert len(self._logprobs) == len(self._target_ids)
        request, next_token_id = self._request, None
        if self._positions:
            end = len(request.context_ids) + len(self._target_ids) - 1
            next_token_id, _ = self._positions[-1].draw(position_uniform(request.seed, end))
        distributions = tuple(position.distribution for position in self._positions)
        ranks, argmax_ids, entropies, margins = (
            zip(*self._signals[:-1], strict=True) if self._signals else ((), (), (), ())
        )
        return Score(
            logprobs=tuple(self._logprobs[:-1]),
            pooled_state=to_normal_tensor(pooled(torch.cat(self._states)[:-1], self._pooling)),
            distributions=distributions if request.distributions and distributions else None,
            ranks=tuple(map(int, ranks)),
            argmax_ids=tuple(map(int, argmax_ids)),
            entropies=entropies,
            next_token_id=next_token_id,
            margins=margins,
        )


def entropy(logits: Tensor) -> Tensor:
    """Returns the entropies of raw logits `[rows, vocabulary]` in nats, `[rows, 1]`."""
    below = logits - logits.amax(-1, keepdim=True)
    below.clamp_(min=torch.finfo(logits.dtype).min)  # 0 * -inf would be NaN
    powers = below.exp()
    total = powers.sum(-1, keepdim=True)
    return total.log() - torch.bmm(powers[:, None], below[:, :, None])[:, 0] / total


def margin(logits: Tensor) -> Tensor:
    """Returns the largest logit minus the second largest one, of logits `[rows, vocabulary]`, `[rows, 1]`."""
    values, _ = top_logits(logits, 2)
    return values[:, :1] - values[:, 1:]


def to_normal_tensor(tensor: Tensor) -> Tensor:
    """Copies an inference tensor to a normal tensor, which autograd accepts as an input."""
    with torch.inference_mode(False):
        return tensor.clone()
