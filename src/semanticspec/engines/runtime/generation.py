"""The decoding state of a `generate` call, independent of what runs the model."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from semanticspec.distributions import Distribution
from semanticspec.engines.base import Pooling, position_uniform
from semanticspec.engines.runtime.pooling import StatePool
from semanticspec.engines.runtime.prefix_cache import PositionOutput
from semanticspec.engines.runtime.requests import GenerateRequest
from semanticspec.engines.runtime.sampling import Sampler
from semanticspec.engines.runtime.scoring import to_normal_tensor
from semanticspec.engines.runtime.worker import Steps
from semanticspec.records import Generation

TURN_S = 0.02
"""How long a call decodes before it emits its tokens, other calls get their turn, and cancellation is checked."""


@dataclass(slots=True)
class _Row:
    """One continuation."""

    sample: int
    previous_id: int
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    logprob: float = 0.0  # their sum
    distributions: list[Distribution] = field(default_factory=list)
    generation: Generation | None = None

    def finish(self, pooled_state: Tensor, stopped: bool) -> None:
        self.generation = Generation(
            logprobs=tuple(self.logprobs),
            pooled_state=to_normal_tensor(pooled_state),
            distributions=tuple(self.distributions) or None,
            token_ids=tuple(self.token_ids),
            stop_reason="stop" if stopped else "length",
        )


class DecodeCall:
    """Samples the rows of a `generate` call, from the first token to the last.

    While `needs_step` returns True, the engine runs the model on `next_ids` and passes the output to `advance`.

    Attributes:
        next_ids: the latest token of each row in the batch, `[rows, 1]`, int64, on the model's device.
        last_ids: the same as a list.
        failure: the error of a forward pass that this call took part in.
    """

    next_ids: Tensor
    last_ids: list[int]

    def __init__(self, request: GenerateRequest, pooling: Pooling, output: PositionOutput) -> None:
        """Samples the first token of each row from the model's output at the end of the context."""
        self._request = request
        self._sampler = Sampler(request.sampling)
        self._states = StatePool(pooling)
        self._position = len(request.context_ids)
        samples = range(request.first_sample, request.first_sample + request.n)
        self._all_rows = [_Row(sample, request.context_ids[-1]) for sample in samples]
        self._rows = self._all_rows  # those in the batch
        self._num_emitted, self._turn_end = 0, 0.0  # the first token is emitted at once
        self.failure: Exception | None = None
        self._sample(output.state.expand(request.n, -1), output.logits[None])

    def needs_step(self) -> Steps[bool]:
        """Returns whether a row is unfinished. At the end of a turn, first emits tokens and yields to other calls.

        Raises:
            Exception: The error of a forward pass that this call took part in.
        """
        turn_is_over = time.monotonic() >= self._turn_end
        while self.failure is None:
            finished = all(row.generation is not None for row in self._all_rows)
            if not finished and not turn_is_over:
                return True
            token_ids = self._all_rows[0].token_ids
            new, self._num_emitted = tuple(token_ids[self._num_emitted :]), len(token_ids)
            yield new
            if finished:
                return False
            self._turn_end, turn_is_over = time.monotonic() + TURN_S, False
        raise self.failure

    def generations(self) -> list[Generation]:
        """Returns the continuations, once all rows are finished."""
        return [row.generation for row in self._all_rows if row.generation is not None]

    @property
    def cached_ids(self) -> list[int]:
        """The tokens of the first row that are in a KV cache: context and output, without the last token."""
        return [*self._request.context_ids, *self._all_rows[0].token_ids[:-1]]

    def advance(self, states: Tensor, logits: Tensor) -> None:
        """Samples the next token of each row, given states `[rows, hidden]` and logits `[rows, vocabulary]`."""
        self._position += 1
        self._sample(states, logits)

    def active_rows(self) -> list[int]:
        """Returns the indices of rows whose KV cache is still needed.

        A single row stays until the call ends, since its KV cache goes to the prefix cache.
        """
        if self.failure is not None:
            return []
        single = self._request.n == 1
        return [index for index, row in enumerate(self._rows) if single or row.generation is None]

    def select_rows(self, rows: Tensor) -> None:
        """Removes all other rows from the batch."""
        self._rows = [self._rows[index] for index in rows.tolist()]
        self._states.select_rows(rows)
        self.next_ids = self.next_ids[rows]
        self.last_ids = [row.previous_id for row in self._rows]

    def _sample(self, states: Tensor, logits: Tensor) -> None:
        """Samples one token per row, and finishes the rows that end with it.

        Args:
            states: `[rows, hidden]`.
            logits: `[rows, vocabulary]`, or `[1, vocabulary]` for all rows.
        """
        request = self._request
        self._states.add(states)
        positions = self._sampler.positions(logits)  # the only synchronization with the device
        positions *= len(self._rows) // len(positions)
        for index, (row, position) in enumerate(zip(self._rows, positions, strict=True)):
            if row.generation is not None:
                continue
            token_id, logprob = position.draw(position_uniform(request.seed, self._position, row.sample))
            row.token_ids.append(token_id)
            row.logprobs.append(logprob)
            if request.distributions:
                row.distributions.append(position.distribution)
            row.logprob += logprob
            stopped = request.stop.ends(row.previous_id, token_id) or request.stop.is_unlikely(row.logprob)
            row.previous_id = token_id
            if stopped or len(row.token_ids) == request.max_tokens:
                row.finish(self._states.row(index), stopped)
        self.last_ids = [row.previous_id for row in self._rows]
        self.next_ids = torch.tensor(self.last_ids, device=logits.device)[:, None]
