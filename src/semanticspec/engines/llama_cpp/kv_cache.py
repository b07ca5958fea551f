"""Cached sequences in llama.cpp's KV cache, and admission of calls to its limited space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from semanticspec.engines.llama_cpp.model_runner import MAX_SEQUENCES, ModelRunner
from semanticspec.engines.runtime.prefix_cache import CachedSequence, PositionOutput, PrefixCache
from semanticspec.engines.runtime.worker import Steps

# Each idle sequence lengthens the buffer that attention iterates over.
MAX_IDLE_SEQUENCES = 16


class LlamaSequence(CachedSequence):
    """A cached sequence of llama.cpp. Its size is in tokens; 0 while busy, since its call has reserved the space.

    Attributes:
        number: llama.cpp's sequence id.
    """

    def __init__(
        self,
        runner: ModelRunner,
        token_ids: Sequence[int] = (),
        outputs: dict[int, PositionOutput] | None = None,
    ) -> None:
        super().__init__(token_ids, outputs)
        self.number = runner.new_sequence()
        self._runner = runner

    def copy_prefix(self, num_tokens: int) -> LlamaSequence:
        copy = LlamaSequence(self._runner, self.token_ids[:num_tokens], self.outputs_within(num_tokens))
        self._runner.copy(self.number, copy.number, num_tokens)
        return copy

    @contextmanager
    def copies(self, count: int) -> Iterator[list[LlamaSequence]]:
        """Makes temporary copies of the sequence."""
        copies: list[LlamaSequence] = []
        try:
            copies += (self.copy_prefix(len(self.token_ids)) for _ in range(count))
            yield copies
        finally:
            for copy in copies:
                copy.free()

    def size(self) -> int:
        return 0 if self.busy else len(self.token_ids)

    def is_consistent(self) -> bool:
        """See `CachedSequence`. First removes tokens that a cancelled call has added beyond `token_ids`."""
        if self._runner.length(self.number) > len(self.token_ids):
            self._runner.truncate(self.number, len(self.token_ids))
        return self._runner.length(self.number) == len(self.token_ids)

    def free(self) -> None:
        self._runner.free_sequence(self.number)

    def _truncate_cache(self, num_tokens: int) -> int:
        return self._runner.truncate(self.number, num_tokens)


@dataclass(frozen=True, slots=True, eq=False)
class Reservation:
    """The space that a call has reserved, or waits for."""

    tokens: int
    sequences: int


class KVCacheSpace:
    """Admits calls in order of arrival, once the KV cache has space for all that they may generate.

    So no running call can fail for lack of space. Idle cached sequences are evicted as needed.
    """

    def __init__(self, runner: ModelRunner) -> None:
        self._runner = runner
        self.prefix_cache = PrefixCache(
            lambda: LlamaSequence(runner),
            reusable=True,
            max_size=runner.cache_tokens,
            max_sequences=MAX_IDLE_SEQUENCES,
        )
        self._waiting: list[Reservation] = []
        self._running: list[Reservation] = []

    @property
    def num_running(self) -> int:
        """How many calls have been admitted."""
        return len(self._running)

    def reserve(self, tokens: int, sequences: int) -> Steps[Reservation]:
        """Waits for space, and reserves it. `sequence` releases it."""
        reservation = Reservation(tokens, sequences)
        self._waiting.append(reservation)
        try:
            while self._waiting[0] is not reservation or not self._fits(reservation):
                yield ()
        finally:
            self._waiting.remove(reservation)
        self._running.append(reservation)
        self._evict()
        return reservation

    @contextmanager
    def sequence(
        self, reservation: Reservation, token_ids: list[int], num_context: int, request_id: str | None
    ) -> Iterator[LlamaSequence]:
        """Acquires a sequence, see `PrefixCache.acquire`. Releases it and the reservation at the end."""
        sequence: LlamaSequence | None = None
        try:
            sequence = self.prefix_cache.acquire(token_ids, num_context, request_id)
            yield sequence
        finally:
            self._running.remove(reservation)
            self._evict()
            if sequence is not None:
                self.prefix_cache.release(sequence)

    def _fits(self, reservation: Reservation) -> bool:
        sequences = reservation.sequences + sum(running.sequences for running in self._running)
        return reservation.tokens <= self._free_tokens() and sequences <= MAX_SEQUENCES - MAX_IDLE_SEQUENCES

    def _free_tokens(self) -> int:
        """Returns the space that running calls leave, if all idle sequences are evicted."""
        return self._runner.cache_tokens - sum(running.tokens for running in self._running)

    def _evict(self) -> None:
        self.prefix_cache.set_max_size(self._free_tokens())
