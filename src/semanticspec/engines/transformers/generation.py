"""Writing with a model: the decode loop of a call, for one continuation or several."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

from semanticspec.engines.runtime.generation import WriteRequest, Writing
from semanticspec.engines.runtime.prefix_cache import CachePool
from semanticspec.engines.transformers.batching import RowBatch
from semanticspec.engines.transformers.kv_cache import CachedSequence
from semanticspec.engines.transformers.network import Network
from semanticspec.engines.transformers.scoring import read_context
from semanticspec.records import Generation


def write(
    network: Network, pool: CachePool[CachedSequence], shared: RowBatch, request: WriteRequest
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
        call = Writing(request, network.states.pooling, mark)
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
    network: Network, shared: RowBatch, call: Writing, sequence: CachedSequence
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
