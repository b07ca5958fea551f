"""Forward passes shared by concurrent calls: llama.cpp runs tokens of any sequences in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from semanticspec.engines.llama_cpp.kv_cache import KVCacheSpace
from semanticspec.engines.llama_cpp.model_runner import MAX_BATCH_TOKENS, ForwardOutput, ModelRunner
from semanticspec.engines.runtime.worker import Steps


@dataclass(slots=True, eq=False)
class BatchPart:
    """One call's tokens for a forward pass.

    Attributes:
        sequences: the sequence number of each token.
        with_output: the output of all tokens is wanted.
        output: the output, after the pass.
        failure: the error of the pass, if it failed.
    """

    token_ids: Sequence[int]
    positions: Sequence[int]
    sequences: Sequence[int]
    with_output: bool
    output: ForwardOutput | None = None
    failure: Exception | None = None


class SharedBatch:
    """Collects the parts of running calls. The call whose turn it is runs a pass over all that fit together.

    While several calls run, each submits its part and lets the others take their turn first, so that they meet in one
    pass. Such a pass costs little more than one call's alone, since moving the weights dominates.
    """

    def __init__(self, runner: ModelRunner, space: KVCacheSpace) -> None:
        self.runner = runner
        self._space = space
        self._waiting: list[BatchPart] = []

    def run(self, part: BatchPart) -> Steps[ForwardOutput | None]:
        """Runs a part, together with others that are waiting, and returns its output.

        Raises:
            EngineError: The pass failed. All calls with a part in it get this error.
        """
        self._waiting.append(part)
        try:
            if self._space.num_running > 1:
                yield ()
            while part in self._waiting:
                self._run_pass(part)
        finally:
            if part in self._waiting:
                self._waiting.remove(part)
        if part.failure is not None:
            raise part.failure
        return part.output

    def run_with_output(
        self, token_ids: Sequence[int], positions: Sequence[int], sequences: Sequence[int]
    ) -> Steps[ForwardOutput]:
        """Runs a part with output, see `BatchPart` and `run`. The logits are valid until the caller's next step."""
        output = yield from self.run(BatchPart(token_ids, positions, sequences, with_output=True))
        assert output is not None
        return output

    def _run_pass(self, own: BatchPart) -> None:
        """Runs the part that has waited longest, with those of its kind that fit.

        The output of `own` is not copied: its call reads it before the next pass.
        """
        with_output = self._waiting[0].with_output
        left = self.runner.max_output_tokens if with_output else MAX_BATCH_TOKENS
        parts: list[BatchPart] = []
        for part in self._waiting:
            if part.with_output == with_output and len(part.token_ids) <= left:
                left -= len(part.token_ids)
                parts.append(part)
        self._waiting = [part for part in self._waiting if part not in parts]
        try:
            output = self.runner.forward(
                [token_id for part in parts for token_id in part.token_ids],
                [position for part in parts for position in part.positions],
                [sequence for part in parts for sequence in part.sequences],
                with_output,
            )
        except Exception as error:
            for part in parts:
                part.failure = error
            return
        start = 0
        for part in parts:
            rows = slice(start, start + len(part.token_ids))
            start = rows.stop
            if output is not None:  # the next pass overwrites llama.cpp's buffers; states are kept beyond it
                logits = output.logits[rows] if part is own else output.logits[rows].clone()
                part.output = ForwardOutput(output.states[rows].clone(), logits)
