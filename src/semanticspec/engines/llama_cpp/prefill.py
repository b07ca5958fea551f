"""Chunked prefill."""

from __future__ import annotations

from collections.abc import Callable

from semanticspec.engines.llama_cpp.batching import BatchPart, SharedBatch
from semanticspec.engines.llama_cpp.kv_cache import LlamaSequence
from semanticspec.engines.llama_cpp.model_runner import MAX_BATCH_TOKENS, ForwardOutput
from semanticspec.engines.runtime.prefix_cache import PositionOutput
from semanticspec.engines.runtime.worker import Steps

# A pass with output computes the logits of all its tokens. This many unused ones cost less than a separate pass.
_MAX_UNUSED_OUTPUTS = 32


def prefill(
    batch: SharedBatch,
    sequence: LlamaSequence,
    token_ids: list[int],
    first: int,
    on_output: Callable[[ForwardOutput], None],
) -> Steps[None]:
    """Runs the model on the tokens that `sequence` lacks of `token_ids`.

    Args:
        first: the first position whose output is wanted.
        on_output: receives the outputs, one chunk at a time, after the chunk has been added to `sequence`.
    """
    max_output = batch.runner.max_output_tokens
    while (start := len(sequence.token_ids)) < len(token_ids):
        num_unused = first - start
        with_output = num_unused <= min(_MAX_UNUSED_OUTPUTS, max_output - 1)
        size = max_output if with_output else min(num_unused, MAX_BATCH_TOKENS)
        chunk = token_ids[start : start + size]
        positions = range(start, start + len(chunk))
        output = yield from batch.run(
            BatchPart(chunk, positions, [sequence.number] * len(chunk), with_output)
        )
        sequence.token_ids += chunk
        if output is not None:
            wanted = slice(max(0, num_unused), None)
            on_output(ForwardOutput(output.states[wanted], output.logits[wanted]))
        if len(sequence.token_ids) < len(token_ids):
            yield ()


def prefill_context(
    batch: SharedBatch, sequence: LlamaSequence, context_ids: list[int]
) -> Steps[PositionOutput]:
    """Prefills a context; returns the output at its last token."""
    end = len(context_ids)

    def store(output: ForwardOutput) -> None:
        sequence.outputs[end] = position_output(output, -1)

    yield from prefill(batch, sequence, context_ids, end - 1, store)
    return sequence.outputs[end]


def position_output(output: ForwardOutput, index: int) -> PositionOutput:
    """Copies one position of an output, so that the rest can be freed."""
    return PositionOutput(output.states[index].clone(), output.logits[index].clone())
