"""The `generate` call: prefill, then decoding in shared passes."""

from __future__ import annotations

from dataclasses import replace

import torch

from semanticspec.engines.base import Pooling
from semanticspec.engines.llama_cpp.batching import SharedBatch
from semanticspec.engines.llama_cpp.kv_cache import KVCacheSpace, LlamaSequence
from semanticspec.engines.llama_cpp.prefill import prefill_context
from semanticspec.engines.runtime.generation import DecodeCall
from semanticspec.engines.runtime.requests import GenerateRequest
from semanticspec.engines.runtime.worker import Steps
from semanticspec.records import Generation

MAX_ROWS = 32
"""Rows that one call decodes or scores at a time."""


def generate(
    batch: SharedBatch, space: KVCacheSpace, pooling: Pooling, request: GenerateRequest
) -> Steps[list[Generation]]:
    """Samples n continuations. With n = 1, yields the tokens and leaves them in the prefix cache."""
    num_context = len(request.context_ids)
    fitting = (batch.runner.cache_tokens - num_context) // request.max_tokens
    num_rows = min(request.n, MAX_ROWS, fitting)
    generations: list[Generation] = []
    while len(generations) < request.n:  # more than one round only if not all rows fit
        first = request.first_sample + len(generations)
        part = replace(request, n=min(num_rows, request.n - len(generations)), first_sample=first)
        reservation = yield from space.reserve(num_context + part.n * part.max_tokens, 1 + part.n)
        with space.sequence(reservation, part.context_ids, num_context, part.request_id) as sequence:
            output = yield from prefill_context(batch, sequence, part.context_ids)
            call = DecodeCall(part, pooling, output)
            if part.n == 1:
                yield from _decode(batch, call, [sequence])
            else:
                with sequence.copies(part.n) as rows:
                    yield from _decode(batch, call, rows)
            generations += call.generations()
    return generations


def _decode(batch: SharedBatch, call: DecodeCall, rows: list[LlamaSequence]) -> Steps[None]:
    """Decodes all rows to their ends, one token of each per pass."""
    while (yield from call.needs_step()):
        active = call.active_rows()
        if len(active) < len(rows):
            call.select_rows(torch.tensor(active))
            rows = [rows[index] for index in active]
        token_ids = call.last_ids
        positions = [len(row.token_ids) for row in rows]
        output = yield from batch.run_with_output(token_ids, positions, [row.number for row in rows])
        for row, token_id in zip(rows, token_ids, strict=True):
            row.token_ids.append(token_id)
        call.advance(output.states, output.logits)
