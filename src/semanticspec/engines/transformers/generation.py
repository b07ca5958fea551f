"""The `generate` call: prefill, then decoding, alone or in the shared batch."""

from __future__ import annotations

from dataclasses import replace

from semanticspec.engines.runtime.generation import DecodeCall
from semanticspec.engines.runtime.prefix_cache import PrefixCache
from semanticspec.engines.runtime.requests import GenerateRequest
from semanticspec.engines.runtime.worker import Steps
from semanticspec.engines.transformers.batching import DecodeBatch
from semanticspec.engines.transformers.kv_cache import TransformersSequence
from semanticspec.engines.transformers.model_runner import ModelRunner
from semanticspec.engines.transformers.prefill import prefill_context
from semanticspec.records import Generation


def generate(
    runner: ModelRunner,
    prefix_cache: PrefixCache[TransformersSequence],
    shared: DecodeBatch,
    request: GenerateRequest,
) -> Steps[list[Generation]]:
    """Samples n continuations: prefills the context once, then decodes all rows together.

    Concurrent calls decode in the `shared` batch. A call with n = 1 yields its tokens and leaves its KV cache in the
    prefix cache. It decodes on its own as long as no other call does.
    """
    if request.n > 1 and not runner.reusable_cache:  # such caches cannot be copied
        generations = []
        for sample in range(request.n):
            single = replace(request, n=1, first_sample=sample)
            generations += yield from generate(runner, prefix_cache, shared, single)
        return generations
    sequence = prefix_cache.acquire(request.context_ids, len(request.context_ids), request.request_id)
    try:
        output = yield from prefill_context(runner, sequence, request.context_ids)
        call = DecodeCall(request, runner.state_spec.pooling, output)
        if request.n == 1:
            yield from _decode_one(runner, shared, call, sequence)
            return call.generations()
        cache = sequence.repeated_cache(request.n)
    finally:
        prefix_cache.release(sequence)
    batch = shared if runner.supports_padding else DecodeBatch(runner)
    batch.join(call, cache)
    with shared.count_call():
        try:
            while (yield from call.needs_step()):
                batch.step()
        finally:
            batch.leave(call)
    return call.generations()


def _decode_one(
    runner: ModelRunner, shared: DecodeBatch, call: DecodeCall, sequence: TransformersSequence
) -> Steps[None]:
    """Decodes one continuation, and appends it to `sequence`. Moves to the shared batch once other calls decode."""
    batch = DecodeBatch(runner)
    batch.join(call, sequence.cache)
    with shared.count_call():
        try:
            while (yield from call.needs_step()):
                if batch is not shared and runner.supports_padding and shared.num_calls > 1:
                    batch = shared
                    batch.join(call, sequence.repeated_cache(1))
                token_ids = call.last_ids
                batch.step()
                if batch is not shared and call.failure is None:
                    sequence.token_ids += token_ids
            if batch is shared:
                cached_ids = call.cached_ids
                keys_values = batch.keys_values_of(call, len(sequence.token_ids), len(cached_ids))
                sequence.append(cached_ids, keys_values)
        finally:
            shared.leave(call)
