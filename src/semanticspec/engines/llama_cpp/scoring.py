"""The `score` call: prefills continuations and builds their scores."""

from __future__ import annotations

from itertools import groupby

from semanticspec.engines.base import Pooling
from semanticspec.engines.llama_cpp.batching import SharedBatch
from semanticspec.engines.llama_cpp.generation import MAX_ROWS
from semanticspec.engines.llama_cpp.kv_cache import KVCacheSpace, LlamaSequence
from semanticspec.engines.llama_cpp.model_runner import ForwardOutput
from semanticspec.engines.llama_cpp.prefill import position_output, prefill, prefill_context
from semanticspec.engines.runtime.requests import ScoreRequest
from semanticspec.engines.runtime.scoring import ScoreBuilder
from semanticspec.engines.runtime.worker import Steps
from semanticspec.records import Score


def score(
    batch: SharedBatch, space: KVCacheSpace, pooling: Pooling, request: ScoreRequest
) -> Steps[list[Score]]:
    """Scores continuations: a single one in the cached sequence, several together in copies of it."""
    num_context, longest = len(request.context_ids), max(map(len, request.continuations))
    single = len(request.continuations) == 1
    fitting = (batch.runner.cache_tokens - num_context) // longest
    num_rows = min(len(request.continuations), MAX_ROWS, fitting)
    reservation = yield from space.reserve(num_context + num_rows * longest, 1 if single else 1 + num_rows)
    token_ids = request.context_ids + (request.continuations[0] if single else [])
    with space.sequence(reservation, token_ids, num_context, request.request_id) as sequence:
        if single:
            return [(yield from _score_one(batch, sequence, pooling, request))]
        scores: list[Score] = []
        while len(scores) < len(request.continuations):
            rows = request.continuations[len(scores) : len(scores) + num_rows]
            scores += yield from _score_rows(batch, sequence, pooling, request, rows)
        return scores


def _score_one(
    batch: SharedBatch, sequence: LlamaSequence, pooling: Pooling, request: ScoreRequest
) -> Steps[Score]:
    """Prefills context and continuation together. Stores the outputs at both ends of the continuation."""
    (continuation,) = request.continuations
    num_context, token_ids = len(request.context_ids), request.context_ids + continuation
    builder = ScoreBuilder(request, continuation, pooling)
    if len(sequence.token_ids) == num_context:
        cached = sequence.outputs[num_context]
        builder.add(cached.state[None], cached.logits[None])

    def add(output: ForwardOutput) -> None:
        if num_context not in sequence.outputs:
            sequence.outputs[num_context] = position_output(output, 0)
        builder.add(*output)
        if len(sequence.token_ids) == len(token_ids):
            sequence.outputs[len(token_ids)] = position_output(output, -1)

    yield from prefill(batch, sequence, token_ids, num_context - 1, add)
    return builder.build()


def _score_rows(
    batch: SharedBatch,
    sequence: LlamaSequence,
    pooling: Pooling,
    request: ScoreRequest,
    rows: list[list[int]],
) -> Steps[list[Score]]:
    """Prefills several continuations of a context, in as few passes as their tokens fit into."""
    num_context = len(request.context_ids)
    context_output = yield from prefill_context(batch, sequence, request.context_ids)
    builders = [ScoreBuilder(request, row, pooling) for row in rows]
    for builder in builders:
        builder.add(context_output.state[None], context_output.logits[None])
    tokens = [(index, offset) for index, row in enumerate(rows) for offset in range(len(row))]
    size = batch.runner.max_output_tokens
    with sequence.copies(len(rows)) as copies:
        for first in range(0, len(tokens), size):
            chunk = tokens[first : first + size]
            output = yield from batch.run_with_output(
                [rows[index][offset] for index, offset in chunk],
                [num_context + offset for _, offset in chunk],
                [copies[index].number for index, _ in chunk],
            )
            start = 0
            for index, row_tokens in groupby(chunk, key=lambda token: token[0]):
                end = start + len(list(row_tokens))
                builders[index].add(output.states[start:end], output.logits[start:end])
                start = end
            yield ()
    return [builder.build() for builder in builders]
