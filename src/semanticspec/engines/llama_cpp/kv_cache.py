"""What is kept of earlier calls in llama.cpp's buffer of keys and values, and who may take how much of it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from semanticspec.engines.llama_cpp.context import MAX_SEQUENCES, LlamaContext
from semanticspec.engines.runtime.prefix_cache import CachePool, Mark

# Idle sequences at most: every one of them lengthens the buffer that attention walks over.
MAX_IDLE_SEQUENCES = 16


@dataclass(slots=True, eq=False)
class LlamaSequence:
    """A sequence of llama.cpp's with its tokens, see `cache_pool.KeptSequence`."""

    context: LlamaContext
    number: int
    token_ids: list[int] = field(default_factory=list)
    marks: dict[int, Mark] = field(default_factory=dict)
    request_id: str | None = None
    busy: bool = True

    @classmethod
    def new(cls, context: LlamaContext) -> LlamaSequence:
        return cls(context, context.new_sequence())

    def cut(self, num_tokens: int) -> None:
        """Forgets all but the first `num_tokens` tokens, or everything where llama.cpp cannot cut."""
        if num_tokens >= len(self.token_ids):
            return
        kept = num_tokens if self.context.cut(self.number, num_tokens) else 0
        del self.token_ids[kept:]
        self.marks = {length: mark for length, mark in self.marks.items() if length <= kept}

    def copied(self, num_tokens: int) -> LlamaSequence:
        copy = LlamaSequence.new(self.context)
        self.context.copy(self.number, copy.number, num_tokens)
        copy.token_ids = self.token_ids[:num_tokens]
        copy.marks = {length: mark for length, mark in self.marks.items() if length <= num_tokens}
        return copy

    def size(self) -> int:
        """Tokens; none while a call works on it, which has taken the room for it."""
        return 0 if self.busy else len(self.token_ids)

    def in_order(self) -> bool:
        """See `KeptSequence`. What a cancelled call has read beyond `token_ids` is cut off first."""
        surplus = self.context.length(self.number) > len(self.token_ids)
        if surplus and not self.context.cut(self.number, len(self.token_ids)):
            return False
        return self.context.length(self.number) == len(self.token_ids)

    def free(self) -> None:
        self.context.free_sequence(self.number)


@dataclass(frozen=True, slots=True, eq=False)
class _Place:
    """What a call takes."""

    tokens: int
    sequences: int


class Room:
    """Lets calls in, first come, first served, as far as the buffer has room for all that they may write.

    So no call can fail in the middle for want of room, however many come at once. Kept sequences give way.
    """

    def __init__(self, context: LlamaContext) -> None:
        self._context = context
        self.pool = CachePool(
            lambda: LlamaSequence.new(context),
            reusable=True,
            max_size=context.cache_tokens,
            max_sequences=MAX_IDLE_SEQUENCES,
        )
        self._waiting: list[_Place] = []
        self._inside: list[_Place] = []

    @property
    def num_calls(self) -> int:
        """How many calls are at work."""
        return len(self._inside)

    def enter(self, tokens: int, sequences: int) -> Generator[tuple[int, ...], None, _Place]:
        """Waits until there is room for so many tokens and sequences, and takes it. `sequence` gives it back."""
        place = _Place(tokens, sequences)
        self._waiting.append(place)
        try:
            while self._waiting[0] is not place or not self._fits(place):
                yield ()
        finally:
            self._waiting.remove(place)
        self._inside.append(place)
        self._make_way()
        return place

    @contextmanager
    def sequence(
        self, place: _Place, token_ids: list[int], num_context: int, request_id: str | None
    ) -> Iterator[LlamaSequence]:
        """The sequence that a call works on, see `CachePool.acquire`; after it the call has left its place."""
        sequence: LlamaSequence | None = None
        try:
            sequence = self.pool.acquire(token_ids, num_context, request_id)
            yield sequence
        finally:
            self._inside.remove(place)
            self._make_way()
            if sequence is not None:
                self.pool.release(sequence)

    def _fits(self, place: _Place) -> bool:
        sequences = place.sequences + sum(other.sequences for other in self._inside)
        return place.tokens <= self._free_tokens() and sequences <= MAX_SEQUENCES - MAX_IDLE_SEQUENCES

    def _free_tokens(self) -> int:
        """What the calls at work leave, all that is kept of earlier ones gone."""
        return self._context.cache_tokens - sum(place.tokens for place in self._inside)

    def _make_way(self) -> None:
        self.pool.limit(self._free_tokens())
