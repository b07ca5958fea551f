"""Builds a score from hidden states and logits at a continuation's positions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from semanticspec.engines.base import Pooling, position_uniform
from semanticspec.engines.runtime.pooling import pooled
from semanticspec.engines.runtime.requests import ScoreRequest
from semanticspec.engines.runtime.sampling import Sampler
from semanticspec.errors import EngineError
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
        self._columns: list[Tensor] = []
        self._distributions: list[Tensor] = []
        self._next_token_id: int | None = None

    def add(self, states: Tensor, logits: Tensor) -> None:
        """Adds the next positions; the first is the last context token, the last is the last continuation token.

        Args:
            states: `[positions, hidden]`; kept until the score is built.
            logits: `[positions, vocabulary]`, float32.
        """
        start = self._num_added
        self._num_added += len(logits)
        targets = torch.tensor(self._target_ids[start : self._num_added], device=logits.device)
        self._states.append(states)
        self._columns.append(_score_columns(logits, targets[:, None]))
        if self._sampler is None:
            return
        if self._request.distributions:
            self._distributions.append(self._sampler.probabilities(logits))
        if self._num_added == len(self._target_ids):
            end = len(self._request.context_ids) + len(self._target_ids) - 1
            drawn, _ = self._sampler.draw(logits[-1:], [position_uniform(self._request.seed, end)])
            self._next_token_id = int(drawn)

    def build(self) -> Score:
        """Returns the score, once all positions have been added.

        Raises:
            EngineError: The logits are NaN.
        """
        assert self._num_added == len(self._target_ids)
        logprobs, ranks, argmax_ids, entropies = torch.cat(self._columns, dim=1)[:, :-1].tolist()
        return Score(
            logprobs=check_logprobs(logprobs),
            pooled_state=to_normal_tensor(pooled(torch.cat(self._states)[:-1], self._pooling)),
            distributions=to_normal_tensor(torch.cat(self._distributions)) if self._distributions else None,
            ranks=tuple(map(int, ranks)),
            argmax_ids=tuple(map(int, argmax_ids)),
            entropies=tuple(entropies),
            next_token_id=self._next_token_id,
        )


def _score_columns(logits: Tensor, targets: Tensor) -> Tensor:
    """Returns log-probabilities, ranks, argmax ids and entropies, stacked to `[4, rows]` for one copy to the CPU.

    Float32 represents ids and ranks up to 2^24 exactly.
    """
    chosen = logits.gather(-1, targets)
    log_normalizer, entropies = log_normalizer_and_entropies(logits)
    ranks = (logits > chosen).sum(-1) + 1
    logprobs = (chosen - log_normalizer)[:, 0]
    return torch.stack((logprobs, ranks.float(), logits.argmax(-1).float(), entropies))


def log_normalizer_and_entropies(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Computes log-sum-exp `[rows, 1]` and entropies `[rows]` in nats of raw logits `[rows, vocabulary]`.

    Both share the exponentials over the vocabulary, which dominate the cost.
    """
    largest = logits.amax(-1, keepdim=True)
    below = (logits - largest).clamp_(min=torch.finfo(logits.dtype).min)  # 0 * -inf would be NaN
    powers = below.exp()
    total = powers.sum(-1, keepdim=True)
    mean_below = torch.bmm(powers[:, None], below[:, :, None])[:, 0] / total
    return largest + total.log(), (total.log() - mean_below)[:, 0]


def check_logprobs(logprobs: Sequence[float]) -> tuple[float, ...]:
    """Returns the log-probabilities as a tuple.

    Raises:
        EngineError: One of them is NaN.
    """
    if any(logprob != logprob for logprob in logprobs):
        raise EngineError("the model's logits are NaN; load it with dtype bfloat16 or float32")
    return tuple(logprobs)


def to_normal_tensor(tensor: Tensor) -> Tensor:
    """Copies an inference tensor to a normal tensor, which autograd accepts as an input."""
    with torch.inference_mode(False):
        return tensor.clone()
