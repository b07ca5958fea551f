"""Writing with a model: the decode loop, for one continuation or a batch of them."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import Cache

from semanticspec.engines.base import position_uniform
from semanticspec.engines.pooling import new_pool
from semanticspec.engines.transformers_cache import CachePool, Mark
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
    network: Network, pool: CachePool, request: WriteRequest
) -> Generator[tuple[int, ...], None, list[Generation]]:
    """Writes n continuations: the context is read once, then they are decoded as a batch.

    With n = 1 the cache grows with the text and is kept, and the tokens are yielded as they are written.
    """
    if request.n > 1 and not network.reusable:  # such caches cannot be copied either: one after the other
        generations = []
        for sample in range(request.n):
            single = replace(request, n=1, first_sample=sample)
            generations += yield from write(network, pool, single)
        return generations
    sequence = pool.acquire(request.context_ids, len(request.context_ids), request.request_id)
    try:
        mark = yield from read_context(network, sequence, request.context_ids)
        if request.n == 1:
            batch = _Batch(network, request, sequence.cache, sequence.token_ids)
            return (yield from batch.decode(mark))
        batch = _Batch(network, request, sequence.expanded(request.n), None)
    finally:
        pool.release(sequence)
    return (yield from batch.decode(mark))


class _Batch:
    """The rows that are being written. Finished ones stay in the batch until they are half of it."""

    def __init__(
        self, network: Network, request: WriteRequest, cache: Cache, cached_ids: list[int] | None
    ) -> None:
        """`cached_ids`, if given, is kept equal to the tokens in `cache`; for a batch of one."""
        self._network = network
        self._request = request
        self._cache = cache
        self._cached_ids = cached_ids
        self._states = new_pool(network.states.pooling)
        samples = range(request.first_sample, request.first_sample + request.n)
        self._all_rows = [_Row(sample, request.context_ids[-1]) for sample in samples]
        self._rows = self._all_rows

    def decode(self, mark: Mark) -> Generator[tuple[int, ...], None, list[Generation]]:
        """Goes on from the state and logits at the end of the context until every row has ended."""
        network, request = self._network, self._request
        sampler = Sampler(request.sampling)
        state = mark.state.expand(request.n, -1)  # [rows, hidden]
        logits = mark.logits.expand(request.n, -1)  # [rows, vocabulary]
        position = len(request.context_ids)
        handed_out, turn_end = 0, 0.0  # the first token goes out at once
        while True:
            self._states.add(state)
            uniforms = [position_uniform(request.seed, position, row.sample) for row in self._rows]
            token_ids, probabilities = sampler.draw(logits, uniforms, request.distributions)
            logprobs = logits.gather(-1, token_ids) - logits.logsumexp(-1, keepdim=True)
            new_ids = token_ids.flatten().tolist()  # the one synchronisation with the device
            self._record(new_ids, logprobs.flatten(), probabilities)
            token_ids = self._without_finished(token_ids)
            if (now := time.monotonic()) >= turn_end or not self._rows:
                written = self._all_rows[0].token_ids
                yield tuple(written[handed_out:])
                handed_out, turn_end = len(written), now + TURN_S
            if not self._rows:
                return [row.generation for row in self._all_rows if row.generation is not None]
            states, own = network.run(token_ids, self._cache)
            if self._cached_ids is not None:
                self._cached_ids.append(new_ids[0])
            state = states[:, -1]
            logits = network.logits(state, None if own is None else own[:, -1])
            position += 1

    def _record(self, new_ids: list[int], logprobs: Tensor, probabilities: Tensor | None) -> None:
        """Appends one token to every row that is still being written, and finishes those it ends."""
        request = self._request
        for index, (row, token_id) in enumerate(zip(self._rows, new_ids, strict=True)):
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

    def _without_finished(self, token_ids: Tensor) -> Tensor:
        """Shrinks the batch once half of it is finished: copying the rest at every end would cost more."""
        alive = [index for index, row in enumerate(self._rows) if row.generation is None]
        if not alive:
            self._rows = []
        elif 2 * len(alive) <= len(self._rows):
            self._rows = [self._rows[index] for index in alive]
            kept = torch.tensor(alive, device=token_ids.device)
            for layer in self._cache.layers:
                layer.select_rows(kept)
            self._states.select_rows(kept)
            token_ids = token_ids[kept]
        return token_ids
