"""Chunked prefill."""

from __future__ import annotations

from semanticspec.engines.runtime.prefix_cache import PositionOutput
from semanticspec.engines.runtime.worker import Steps
from semanticspec.engines.transformers.kv_cache import TransformersSequence
from semanticspec.engines.transformers.model_runner import ForwardOutput, ModelRunner

CHUNK_TOKENS = 1024
"""Other calls get their turn between chunks, and attention masks stay small."""


def prefill(
    runner: ModelRunner, sequence: TransformersSequence, token_ids: list[int], first: int
) -> Steps[ForwardOutput]:
    """Runs the model on the tokens that `sequence` lacks of `token_ids`; at least one.

    Returns:
        The output from position `first` on, as far as it was not cached: `[positions, ...]`.
    """
    outputs: list[ForwardOutput] = []
    while True:
        start = len(sequence.token_ids)
        chunk = token_ids[start : start + CHUNK_TOKENS]
        output = runner.forward(runner.tokens(chunk), sequence.cache)[0]
        sequence.token_ids.extend(chunk)
        outputs.append(output[max(0, first - start) :])
        if len(sequence.token_ids) == len(token_ids):
            return ForwardOutput.cat(outputs)
        yield ()


def prefill_context(
    runner: ModelRunner, sequence: TransformersSequence, context_ids: list[int]
) -> Steps[PositionOutput]:
    """Prefills a context; returns the output at its last token."""
    end = len(context_ids)
    if len(sequence.token_ids) < end:
        output = yield from prefill(runner, sequence, context_ids, end - 1)
        sequence.outputs[end] = runner.position_output(output, runner.logits(output), -1)
    return sequence.outputs[end]
