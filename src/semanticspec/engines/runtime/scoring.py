"""Builds a score from hidden states and logits at a continuation's positions."""

from __future__ import annotations

import torch
from torch import Tensor

from semanticspec.distributions import Distribution
from semanticspec.engines.base import Pooling, position_uniform
from semanticspec.engines.runtime.pooling import pooled
from semanticspec.engines.runtime.requests import ScoreRequest
from semanticspec.engines.runtime.sampling import Sampler, argmax, chunks, log_normalizer, to_host
from semanticspec.records import Score


class ScoreBuilder:
    """Builds the score of one continuation from a few positions at a time, so that logits need not be kept."""

    def __init__(self, request: ScoreRequest, continuation: list[int], pooling: Pooling) -> None:
        self._request = request
        self._pooling: Pooling = pooling
        self._sampler = Sampler(request.sampling) if request.sampling is not None else None
        self._target_ids = [*continuation, 0]  # nothing follows the last token
        self._num_added = 0
        self._states: list[Tensor] = []
        self._columns: list[list[float]] = []
        self._distributions: list[Distribution] = []
        self._next_token_id: int | None = None

    def add(self, states: Tensor, logits: Tensor) -> None:
        """Adds the next positions; the first is the last context token, the last is the last continuation token.

        Args:
            states: `[positions, hidden]`; kept until the score is built.
            logits: `[positions, vocabulary]`, not kept.

        Raises:
            EngineError: The logits are NaN.
        """
        self._states.append(states)
        for chunk in chunks(logits):
            self._add(chunk)
        if self._num_added == len(self._target_ids) and self._sampler is not None:
            (last,) = self._sampler.positions(logits[-1:])
            end = len(self._request.context_ids) + len(self._target_ids) - 1
            self._next_token_id, _ = last.draw(position_uniform(self._request.seed, end))

    def _add(self, logits: Tensor) -> None:
        start = self._num_added
        self._num_added += len(logits)
        targets = torch.tensor(self._target_ids[start : self._num_added], device=logits.device)
        chosen = logits.gather(-1, targets[:, None])
        largest = logits.amax(-1, keepdim=True)
        columns = [chosen - largest - log_normalizer(logits, largest)]
        if self._request.signals:
            columns += [(logits > chosen).sum(-1, keepdim=True) + 1, argmax(logits)[:, None], entropy(logits)]
        self._columns += to_host(*columns).tolist()
        if self._request.distributions and self._sampler is not None:
            self._distributions += [position.distribution for position in self._sampler.positions(logits)]

    def build(self) -> Score:
        """Returns the score, once all positions have been added."""
        assert self._num_added == len(self._target_ids)
        logprobs, *signals = zip(*self._columns[:-1], strict=True)
        ranks, argmax_ids, entropies = signals or ((), (), ())
        return Score(
            logprobs=logprobs,
            pooled_state=to_normal_tensor(pooled(torch.cat(self._states)[:-1], self._pooling)),
            distributions=tuple(self._distributions) or None,
            ranks=tuple(map(int, ranks)),
            argmax_ids=tuple(map(int, argmax_ids)),
            entropies=entropies,
            next_token_id=self._next_token_id,
        )


def entropy(logits: Tensor) -> Tensor:
    """Returns the entropies of raw logits `[rows, vocabulary]` in nats, `[rows, 1]`."""
    below = (logits - logits.amax(-1, keepdim=True)).clamp_(
        min=torch.finfo(logits.dtype).min
    )  # 0 * -inf would be NaN
    powers = below.exp()
    total = powers.sum(-1, keepdim=True)
    return total.log() - torch.bmm(powers[:, None], below[:, :, None])[:, 0] / total


def to_normal_tensor(tensor: Tensor) -> Tensor:
    """Copies an inference tensor to a normal tensor, which autograd accepts as an input."""
    with torch.inference_mode(False):
        return tensor.clone()
