"""The rows of a call that writes: what was drawn, said and pooled of each, whatever runs the model."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from semanticspec.engines.base import Pooling, position_uniform
from semanticspec.engines.runtime.pooling import new_pool
from semanticspec.engines.runtime.prefix_cache import Mark
from semanticspec.engines.runtime.sampling import Sampler
from semanticspec.engines.runtime.scoring import finite, plain
from semanticspec.records import Generation, Sampling, Stop

# How long a call may write before others get their turn, it is asked whether anybody still waits, and what it
# wrote is handed out.
TURN_S = 0.02


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """The arguments of `Engine.generate`; `first_sample` numbers the first of the n samples."""

    context_ids: list[int]
    n: int
    max_tokens: int
    stop: Stop
    sampling: Sampling
    seed: int
    distributions: bool
    request_id: str | None
    first_sample: int = 0


class _Row:
    """One continuation while it is written."""

    __slots__ = ("generation", "logprobs", "previous_id", "probabilities", "sample", "token_ids")

    def __init__(self, sample: int, previous_id: int) -> None:
        self.sample = sample
        self.previous_id = previous_id
        self.token_ids: list[int] = []
        self.logprobs: list[Tensor] = []  # one number each, fetched when the row is done
        self.probabilities: list[Tensor] = []
        self.generation: Generation | None = None

    def finish(self, pooled_state: Tensor, stopped: bool) -> None:
        """Makes the generation, given its pooled state."""
        self.generation = Generation(
            logprobs=finite(torch.stack(self.logprobs).tolist()),
            pooled_state=plain(pooled_state),
            distributions=plain(torch.stack(self.probabilities)) if self.probabilities else None,
            token_ids=tuple(self.token_ids),
            stop_reason="stop" if stopped else "length",
        )


class Writing:
    """A call that writes: its rows, from the first token of each to the last.

    Whoever runs the model reads `next_ids` in one pass and hands what it says to `advance`, as long as
    `needs_step`. `failure` is what made a pass fail that the call took part in.
    """

    def __init__(self, request: WriteRequest, pooling: Pooling, mark: Mark) -> None:
        """Draws the first tokens from what was said at the end of the context, the `mark`."""
        self._request = request
        self._sampler = Sampler(request.sampling)
        self._states = new_pool(pooling)
        self._position = len(request.context_ids)
        samples = range(request.first_sample, request.first_sample + request.n)
        self._all_rows = [_Row(sample, request.context_ids[-1]) for sample in samples]
        self._rows = self._all_rows  # those in the batch
        self._handed_out, self._turn_end = 0, 0.0  # the first token goes out at once
        self.failure: Exception | None = None
        self.next_ids: Tensor
        self.last_ids: list[int]
        self._draw(mark.state.expand(request.n, -1), mark.logits.expand(request.n, -1))

    def needs_step(self) -> Generator[tuple[int, ...], None, bool]:
        """Whether there is more to write. Others get their turn first, once this call's is over.

        Raises:
            Exception: what made a pass fail that the call took part in.
        """
        turn_is_over = time.monotonic() >= self._turn_end
        while self.failure is None:
            ended = all(row.generation is not None for row in self._all_rows)
            if not ended and not turn_is_over:
                return True
            written = self._all_rows[0].token_ids
            new, self._handed_out = tuple(written[self._handed_out :]), len(written)
            yield new
            if ended:
                return False
            self._turn_end, turn_is_over = time.monotonic() + TURN_S, False
        raise self.failure

    def generations(self) -> list[Generation]:
        """What was written, once all of it is."""
        return [row.generation for row in self._all_rows if row.generation is not None]

    @property
    def read_ids(self) -> list[int]:
        """The context and what of the first row is in a cache: all but its last token."""
        return [*self._request.context_ids, *self._all_rows[0].token_ids[:-1]]

    def advance(self, states: Tensor, logits: Tensor) -> None:
        self._position += 1
        self._draw(states, logits)

    def going_on(self) -> list[int]:
        if self.failure is not None:
            return []
        kept = self._request.n == 1  # its place in the cache is brought back in the end
        return [index for index, row in enumerate(self._rows) if kept or row.generation is None]

    def keep(self, rows: Tensor) -> None:
        self._rows = [self._rows[index] for index in rows.tolist()]
        self._states.select_rows(rows)
        self.next_ids = self.next_ids[rows]

    def _draw(self, states: Tensor, logits: Tensor) -> None:
        """Appends one token to every row that is still being written, and finishes those it ends."""
        request = self._request
        self._states.add(states)
        uniforms = [position_uniform(request.seed, self._position, row.sample) for row in self._rows]
        self.next_ids, probabilities = self._sampler.draw(logits, uniforms, request.distributions)
        logprobs = logits.log_softmax(-1).gather(-1, self.next_ids).flatten()
        self.last_ids = self.next_ids.flatten().tolist()  # the one synchronisation with the device
        for index, (row, token_id) in enumerate(zip(self._rows, self.last_ids, strict=True)):
            if row.generation is not None:
                continue
            row.token_ids.append(token_id)
            row.logprobs.append(logprobs[index])
            if probabilities is not None:
                row.probabilities.append(probabilities[index])
            stopped = request.stop.ends(row.previous_id, token_id)
            row.previous_id = token_id
            if stopped or len(row.token_ids) == request.max_tokens:
                row.finish(self._states.of_row(index), stopped)
