"""What an engine keeps of earlier calls: token sequences with what the model computed of them, in a bounded pool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, Self, TypeVar

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Mark:
    """What the model said after some number of tokens: state `[hidden]` and raw logits `[vocabulary]`.

    `own` is what the logits are made of where that is not the state, see `Network.run`.
    """

    state: Tensor
    logits: Tensor
    own: Tensor | None = None

    def num_bytes(self) -> int:
        shared = self.own is None or self.own is self.logits
        return self.state.nbytes + self.logits.nbytes + (0 if shared or self.own is None else self.own.nbytes)


class KeptSequence(Protocol):
    """A token sequence with keys and values that can be cut back and copied.

    Attributes:
        token_ids: the tokens whose keys and values are kept.
        marks: by number of tokens read. A context that ends at a mark needs no forward pass at all.
        request_id: who used it last.
        busy: a call is working on it; it may be copied from, never cut.
    """

    token_ids: list[int]
    marks: dict[int, Mark]
    request_id: str | None
    busy: bool

    def cut(self, num_tokens: int) -> None:
        """Forgets all but the first `num_tokens` tokens; nothing is copied."""
        ...

    def copied(self, num_tokens: int) -> Self:
        """A sequence of its own with the first `num_tokens` tokens."""
        ...

    def size(self) -> int:
        """What it takes of what the pool is bounded in."""
        ...

    def in_order(self) -> bool:
        """Whether what is kept is of `token_ids`: an error or a cancelled call may leave it otherwise."""
        ...

    def free(self) -> None:
        """Gives back what it takes; it is not used again."""
        ...


SequenceT = TypeVar("SequenceT", bound=KeptSequence)


class CachePool(Generic[SequenceT]):
    """The sequences of recent calls, least recently used out, bounded in size and, of idle ones, in number.

    Used from the engine's worker thread only. A sequence is taken by `acquire` and brought back by `release`.
    """

    # Kept per sequence: one where a scored continuation begins (to go on from there when it is rejected), one
    # where it ends (to go on from there when it is accepted).
    _MAX_MARKS = 2

    def __init__(
        self, new_sequence: Callable[[], SequenceT], *, reusable: bool, max_size: int, max_sequences: int
    ) -> None:
        """An empty pool.

        Args:
            new_sequence: makes an empty, busy sequence.
            reusable: whether sequences can be cut and copied at all; else none is kept.
            max_size: of all together, in the unit of their `size`.
        """
        self._new_sequence = new_sequence
        self._reusable = reusable
        self._max_size = max_size
        self._max_sequences = max_sequences
        self._sequences: list[SequenceT] = []  # least recently used first

    def __len__(self) -> int:
        return len(self._sequences)

    def size(self) -> int:
        return sum(sequence.size() for sequence in self._sequences)

    def acquire(self, token_ids: list[int], num_context: int, request_id: str | None) -> SequenceT:
        """A sequence that holds a prefix of the first `num_context` of `token_ids`, as long as can be had.

        It holds the whole context only if it also has the mark there; else at most all but its last token,
        which has to be read again. A kept sequence is cut in place when nothing of worth goes with the
        cut-off part: the same request is done with it (a rejected draft), or the caller is about to write
        the same tokens again. Else its prefix is copied, so that requests with one prompt do not spoil each
        other.
        """
        best: SequenceT | None = None
        best_key = (0, False)
        best_in_place = False
        for sequence in self._sequences:
            common = _common_prefix(sequence.token_ids, token_ids)
            usable = num_context if common >= num_context else common
            if usable == num_context and num_context not in sequence.marks:
                usable = num_context - 1
            same_request = request_id is not None and sequence.request_id == request_id
            in_place = not sequence.busy and (same_request or common == len(sequence.token_ids))
            if usable > 0 and (usable, in_place) >= best_key:
                best, best_key, best_in_place = sequence, (usable, in_place), in_place
        taken = self._taken(best, best_key[0], best_in_place)
        taken.request_id, taken.busy = request_id, True
        return taken

    def release(self, sequence: SequenceT) -> None:
        """Keeps the sequence for later calls, unless an error left it in disorder."""
        sequence.busy = False
        if sequence in self._sequences:
            self._sequences.remove(sequence)
        if not self._reusable or not sequence.in_order():
            sequence.free()
            return
        for length in sorted(sequence.marks)[: -self._MAX_MARKS]:
            del sequence.marks[length]
        self._sequences.append(sequence)
        self._evict()

    def clear(self) -> None:
        """Forgets all; what is in use comes back when its call is done."""
        for sequence in self._sequences:
            if not sequence.busy:
                sequence.free()
        self._sequences.clear()

    def limit(self, max_size: int) -> None:
        """Sets another bound, and keeps to it at once."""
        self._max_size = max_size
        self._evict()

    def _taken(self, source: SequenceT | None, usable: int, in_place: bool) -> SequenceT:
        if source is None:
            sequence = self._new_sequence()
        elif in_place:
            source.cut(usable)
            return source
        else:
            sequence = source.copied(usable)
        if self._reusable:
            self._sequences.append(sequence)
            self._evict()
        return sequence

    def _evict(self) -> None:
        size = self.size()
        idle = [kept for kept in self._sequences if not kept.busy]
        for left, sequence in zip(range(len(idle), 0, -1), idle, strict=True):
            if size <= self._max_size and left <= self._max_sequences:
                return
            size -= sequence.size()
            self._sequences.remove(sequence)
            sequence.free()


def _common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """Length of the longest common prefix, by bisection: comparing slices runs in C."""
    low, high = 0, min(len(first), len(second))
    if first[:high] == second[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if first[low:middle] == second[low:middle]:
            low = middle
        else:
            high = middle
    return low
