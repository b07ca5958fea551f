"""The `score` call: prefills continuations and builds their scores."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from semanticspec.engines.runtime.prefix_cache import PrefixCache
from semanticspec.engines.runtime.requests import ScoreRequest
from semanticspec.engines.runtime.scoring import ScoreBuilder
from semanticspec.engines.runtime.worker import Steps
from semanticspec.engines.transformers.kv_cache import TransformersSequence
from semanticspec.engines.transformers.model_runner import ForwardOutput, ModelRunner
from semanticspec.engines.transformers.prefill import prefill, prefill_context
from semanticspec.records import Score

# Logits are computed for at most this many values at a time: 64 MB in float32.
_MAX_LOGITS = 2**24
# Continuations are padded to a common length while that is cheaper than another forward pass, which costs about as much
# as this many tokens.
_PASS_COST_TOKENS = 64
_MAX_BATCH_TOKENS = 4096


def score(
    runner: ModelRunner, prefix_cache: PrefixCache[TransformersSequence], request: ScoreRequest
) -> Steps[list[Score]]:
    """Scores continuations: a single one together with the uncached end of its context, several in padded batches."""
    if len(request.continuations) > 1 and runner.reusable_cache:
        return (yield from _score_batch(runner, prefix_cache, request))
    scores = []
    for continuation in request.continuations:
        scores.append((yield from _score_one(runner, prefix_cache, request, continuation)))
        yield ()
    return scores


def _score_one(
    runner: ModelRunner,
    prefix_cache: PrefixCache[TransformersSequence],
    request: ScoreRequest,
    continuation: list[int],
) -> Steps[Score]:
    num_context = len(request.context_ids)
    token_ids = request.context_ids + continuation
    sequence = prefix_cache.acquire(token_ids, num_context, request.request_id)
    try:
        cached = []
        if len(sequence.token_ids) == num_context:  # the whole context is cached, with the output at its end
            cached = [ForwardOutput.at(sequence.outputs[num_context])]
        output = yield from prefill(runner, sequence, token_ids, num_context - 1)
        yield ()
        return _build_score(runner, request, continuation, ForwardOutput.cat([*cached, output]), sequence)
    finally:
        prefix_cache.release(sequence)


def _score_batch(
    runner: ModelRunner, prefix_cache: PrefixCache[TransformersSequence], request: ScoreRequest
) -> Steps[list[Score]]:
    """Scores continuations of similar length in one pass.

    Padding is on the right: with causal attention, no real token attends to it. With a request id, the rows' KV caches
    go to the prefix cache, since the request continues from one of them.
    """
    scores: dict[int, Score] = {}
    sequence = prefix_cache.acquire(request.context_ids, len(request.context_ids), request.request_id)
    try:
        context_output = yield from prefill_context(runner, sequence, request.context_ids)
        for indices in _group_by_length([len(row) for row in request.continuations]):
            rows = [request.continuations[index] for index in indices]
            longest = max(map(len, rows))
            padded = [row + [row[-1]] * (longest - len(row)) for row in rows]
            cache = sequence.repeated_cache(len(rows))
            output = runner.forward(torch.tensor(padded, device=runner.device), cache)
            for place, (index, row) in enumerate(zip(indices, rows, strict=True)):
                yield ()
                row_output = ForwardOutput.cat([ForwardOutput.at(context_output), output[place, : len(row)]])
                extended = None
                if request.request_id is not None:
                    extended = sequence.extended_by(row, cache, place)
                scores[index] = _build_score(runner, request, row, row_output, extended)
                if extended is not None:
                    prefix_cache.release(extended)
    finally:
        prefix_cache.release(sequence)
    return [scores[index] for index in range(len(request.continuations))]


def _group_by_length(lengths: Sequence[int]) -> list[list[int]]:
    """Groups the indices of continuations into batches with little padding."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        grown = [*batches[-1], index] if batches else []
        real, padded = sum(lengths[i] for i in grown), len(grown) * lengths[index]
        if grown and padded <= _MAX_BATCH_TOKENS and padded - real <= max(_PASS_COST_TOKENS, real // 4):
            batches[-1] = grown
        else:
            batches.append([index])
    return batches


def _build_score(
    runner: ModelRunner,
    request: ScoreRequest,
    continuation: list[int],
    output: ForwardOutput,
    sequence: TransformersSequence | None,
) -> Score:
    """Builds a score from the output at the last context token and at all continuation tokens.

    Stores the outputs at both ends of the continuation in `sequence`.
    """
    builder = ScoreBuilder(request, continuation, runner.state_spec.pooling)
    step = max(1, _MAX_LOGITS // runner.vocabulary_size)
    for start in range(0, len(output.states), step):
        part = output[start : start + step]
        logits = runner.logits(part)
        builder.add(part.states, logits)
        if sequence is not None and start == 0:
            sequence.outputs[len(request.context_ids)] = runner.position_output(output, logits, 0)
    if sequence is not None:
        sequence.outputs[len(sequence.token_ids)] = runner.position_output(output, logits, -1)
    return builder.build()
