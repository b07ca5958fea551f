"""From states and logits at a continuation's positions to its score, whatever computed them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from semanticspec.engines.base import Pooling, position_uniform
from semanticspec.engines.runtime.pooling import pooled
from semanticspec.engines.runtime.sampling import Sampler
from semanticspec.errors import EngineError
from semanticspec.records import Sampling, Score


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """The arguments of `Engine.score`."""

    context_ids: list[int]
    continuations: list[list[int]]
    sampling: Sampling | None
    seed: int
    distributions: bool
    request_id: str | None


class ScoreReader:
    """Makes the score of one continuation, a few positions at a time, so that logits need not be kept."""

    def __init__(self, request: ScoreRequest, continuation: list[int], pooling: Pooling) -> None:
        self._request = request
        self._pooling: Pooling = pooling
        self._sampler = Sampler(request.sampling) if request.sampling is not None else None
        self._targets = [*continuation, 0]  # nothing follows the last token
        self._num_read = 0
        self._states: list[Tensor] = []
        self._columns: list[Tensor] = []
        self._rows: list[Tensor] = []
        self._next_token_id: int | None = None

    def add(self, states: Tensor, logits: Tensor) -> None:
        """Takes in the next positions, from the last of the context to the last of the continuation.

        Args:
            states: `[positions, hidden]`, kept until the score is made.
            logits: `[positions, vocabulary]`, float32.
        """
        start = self._num_read
        self._num_read += len(logits)
        targets = torch.tensor(self._targets[start : self._num_read], device=logits.device)
        self._states.append(states)
        self._columns.append(_columns(logits, targets[:, None]))
        if self._sampler is None:
            return
        if self._request.distributions:
            self._rows.append(self._sampler.probabilities(logits))
        if self._num_read == len(self._targets):
            end = len(self._request.context_ids) + len(self._targets) - 1
            drawn, _ = self._sampler.draw(logits[-1:], [position_uniform(self._request.seed, end)])
            self._next_token_id = int(drawn)

    def score(self) -> Score:
        """The score, once all positions have been read.

        Raises:
            EngineError: the logits were no numbers.
        """
        assert self._num_read == len(self._targets)
        logprobs, ranks, favourites, entropies = torch.cat(self._columns, dim=1)[:, :-1].tolist()
        return Score(
            logprobs=finite(logprobs),
            pooled_state=plain(pooled(torch.cat(self._states)[:-1], self._pooling)),
            distributions=plain(torch.cat(self._rows)) if self._rows else None,
            ranks=tuple(map(int, ranks)),
            argmax_ids=tuple(map(int, favourites)),
            entropies=tuple(entropies),
            next_token_id=self._next_token_id,
        )


def _columns(logits: Tensor, targets: Tensor) -> Tensor:
    """Log-probabilities, ranks, favourites and entropies as one tensor `[4, rows]`, so that they travel to the
    CPU once.

    Float32 holds ids and ranks up to 2^24 exactly.
    """
    chosen = logits.gather(-1, targets)
    normaliser, entropies = normaliser_and_entropies(logits)
    ranks = (logits > chosen).sum(-1) + 1
    return torch.stack(((chosen - normaliser)[:, 0], ranks.float(), logits.argmax(-1).float(), entropies))


def normaliser_and_entropies(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Log-sum-exp `[rows, 1]` and entropies `[rows]`, nats, of raw logits `[rows, vocabulary]`.

    Together, since what takes the time, the exponentials over the vocabulary, serves both.
    """
    largest = logits.amax(-1, keepdim=True)
    below = (logits - largest).clamp_(min=torch.finfo(logits.dtype).min)  # for 0 * -inf would be no number
    powers = below.exp()
    total = powers.sum(-1, keepdim=True)
    mean_below = torch.bmm(powers[:, None], below[:, :, None])[:, 0] / total
    return largest + total.log(), (total.log() - mean_below)[:, 0]


def finite(logprobs: Sequence[float]) -> tuple[float, ...]:
    """The log-probabilities, refused where the model's logits were no numbers.

    Raises:
        EngineError: one of them is NaN.
    """
    if any(logprob != logprob for logprob in logprobs):
        raise EngineError(
            "the model's logits are not numbers (NaN); load it with another dtype, bfloat16 or float32"
        )
    return tuple(logprobs)


def plain(tensor: Tensor) -> Tensor:
    """A copy that a probe can be trained on: autograd refuses tensors made in inference mode."""
    with torch.inference_mode(False):
        return tensor.clone()
