"""Writing with a model: the decode loop of a call, for one continuation or several."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from semanticspec.engines.base import position_uniform
from semanticspec.engines.pooling import new_pool
from semanticspec.engines.transformers_batch import RowBatch
from semanticspec.engines.transformers_cache import CachedSequence, CachePool, Mark
from semanticspec.engines.transformers_network import Network
from semanticspec.engines.transformers_reading import finite, plain, read_context
from semanticspec.engines.transformers_sampling import Sampler
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


def write(
    network: Network, pool: CachePool, shared: RowBatch, request: WriteRequest
) -> Generator[tuple[int, ...], None, list[Generation]]:
    """Writes n continuations: the context is read once, then they are decoded together.

    Calls that decode at the same time do so in the `shared` batch. With n = 1 the tokens are yielded as they are
    written and their cache is kept; such a call decodes over its own cache as long as no other is decoding.
    """
    if request.n > 1 and not network.reusable:  # such caches cannot be copied either: one after the other
        generations = []
        for sample in range(request.n):
            single = replace(request, n=1, first_sample=sample)
            generations += yield from write(network, pool, shared, single)
        return generations
    sequence = pool.acquire(request.context_ids, len(request.context_ids), request.request_id)
    try:
        mark = yield from read_context(network, sequence, request.context_ids)
        call = _Call(network, request, mark)
        if request.n == 1:
            return (yield from _decode_one(network, shared, call, sequence))
        cache = sequence.expanded(request.n)
    finally:
        pool.release(sequence)
    batch = shared if network.masks else RowBatch(network)
    batch.join(call, cache)
    with shared.counted():
        try:
            while (yield from call.needs_step()):
                batch.step()
        finally:
            batch.leave(call)
    return call.generations()


def _decode_one(
    network: Network, shared: RowBatch, call: _Call, sequence: CachedSequence
) -> Generator[tuple[int, ...], None, list[Generation]]:
    """Decodes one continuation of `sequence`, which grows by what is written."""
    batch = RowBatch(network)
    batch.join(call, sequence.cache)
    with shared.counted():
        try:
            while (yield from call.needs_step()):
                if batch is not shared and network.masks and shared.num_calls > 1:
                    batch = shared
                    batch.join(call, sequence.expanded(1))
                read_ids = call.last_ids
                batch.step()
                if batch is not shared and call.failure is None:
                    sequence.token_ids += read_ids
            if batch is shared:
                sequence.append(
                    call.read_ids, batch.row_of(call, len(sequence.token_ids), len(call.read_ids))
                )
        finally:
            shared.leave(call)
    return call.generations()


class _Call:
    """A call's rows in a batch, see `transformers_batch.Member`."""

    def __init__(self, network: Network, request: WriteRequest, mark: Mark) -> None:
        """Draws the first tokens from what was said at the end of the context."""
        self._request = request
        self._sampler = Sampler(request.sampling)
        self._states = new_pool(network.states.pooling)
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
        logprobs = (logits.gather(-1, self.next_ids) - logits.logsumexp(-1, keepdim=True)).flatten()
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
