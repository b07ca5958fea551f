"""Prefix cache: token sequences of earlier calls with their KV caches, in a bounded pool with LRU eviction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

from torch import Tensor


@dataclass(frozen=True, slots=True)
class PositionOutput:
    """The model's output at one position.

    Attributes:
        state: hidden state `[hidden]`.
        logits: raw logits `[vocabulary]`, float32.
        logit_source: what the logits are computed from, where that is not `state`, see transformers' `ForwardOutput`.
    """

    state: Tensor
    logits: Tensor
    logit_source: Tensor | None = None

    def num_bytes(self) -> int:
        """Returns the memory taken; a tensor that is shared counts once."""
        tensors = {id(t): t for t in (self.state, self.logits, self.logit_source) if t is not None}
        return sum(tensor.nbytes for tensor in tensors.values())


class CachedSequence(ABC):
    """A token sequence with its KV cache.

    Attributes:
        token_ids: the tokens in the KV cache.
        outputs: model outputs by number of tokens. A context that ends at one of them needs no prefill.
        request_id: the request that used the sequence last.
        busy: a call is using the sequence. It may be copied from, but not truncated.
    """

    def __init__(
        self, token_ids: Sequence[int] = (), outputs: dict[int, PositionOutput] | None = None
    ) -> None:
        self.token_ids = list(token_ids)
        self.outputs = dict(outputs or {})
        self.request_id: str | None = None
        self.busy = True

    def truncate(self, num_tokens: int) -> None:
        """Drops all but the first `num_tokens` tokens, in place."""
        if num_tokens < len(self.token_ids):
            kept = self._truncate_cache(num_tokens)
            del self.token_ids[kept:]
            self.outputs = self.outputs_within(kept)

    def outputs_within(self, num_tokens: int) -> dict[int, PositionOutput]:
        """Returns the outputs within the first `num_tokens` tokens."""
        return {length: output for length, output in self.outputs.items() if length <= num_tokens}

    @abstractmethod
    def copy_prefix(self, num_tokens: int) -> Self:
        """Returns a new sequence with the first `num_tokens` tokens."""

    @abstractmethod
    def size(self) -> int:
        """Returns the sequence's size in the pool's unit (bytes or tokens)."""

    @abstractmethod
    def is_consistent(self) -> bool:
        """Returns whether the KV cache holds exactly `token_ids`; errors and cancellation may break this."""

    @abstractmethod
    def free(self) -> None:
        """Releases the KV cache. The sequence is not used again."""

    @abstractmethod
    def _truncate_cache(self, num_tokens: int) -> int:
        """Truncates the KV cache; returns the number of tokens left."""


SequenceT = TypeVar("SequenceT", bound=CachedSequence)


class PrefixCache(Generic[SequenceT]):
    """Sequences of recent calls, bounded by total size and by the number of idle sequences.

    `acquire` takes a sequence for a call, `release` returns it. Not thread-safe: used on the engine's worker only.
    """

    # Per idle sequence: at the start of the last scored continuation (used if it is rejected) and at its end (if it is
    # accepted).
    _MAX_OUTPUTS = 2

    def __init__(
        self, new_sequence: Callable[[], SequenceT], *, reusable: bool, max_size: int, max_sequences: int
    ) -> None:
        """Makes an empty cache.

        Args:
            new_sequence: makes an empty, busy sequence.
            reusable: whether sequences can be truncated and copied; if not, none is kept.
            max_size: limit for all sequences together, in the unit of their `size`.
            max_sequences: limit for idle sequences.
        """
        self._new_sequence = new_sequence
        self._reusable = reusable
        self._max_size = max_size
        self._max_sequences = max_sequences
        self._sequences: list[SequenceT] = []  # least recently used first

    def __len__(self) -> int:
        return len(self._sequences)

    def size(self) -> int:
        """Returns the size of all sequences together."""
        return sum(sequence.size() for sequence in self._sequences)

    def acquire(self, token_ids: list[int], num_context: int, request_id: str | None) -> SequenceT:
        """Returns a busy sequence with the longest cached prefix of the first `num_context` tokens.

        It holds the whole context only if it also has the output there. Otherwise it lacks at least the last context
        token, which has to be prefilled again for its output.

        A cached sequence is truncated in place if nothing useful is lost: it belongs to the same request (a draft was
        rejected), or the call continues it with the same tokens. Otherwise its prefix is copied, so that requests with
        a common prompt do not evict each other's tokens.
        """
        best: SequenceT | None = None
        best_key = (0, False)
        for sequence in self._sequences:
            common = _common_prefix(sequence.token_ids, token_ids)
            usable = min(common, num_context)
            if usable == num_context and num_context not in sequence.outputs:
                usable -= 1
            same_request = request_id is not None and sequence.request_id == request_id
            in_place = not sequence.busy and (same_request or common == len(sequence.token_ids))
            if usable > 0 and (usable, in_place) >= best_key:
                best, best_key = sequence, (usable, in_place)
        taken = self._take(best, *best_key)
        taken.request_id, taken.busy = request_id, True
        return taken

    def release(self, sequence: SequenceT) -> None:
        """Returns a sequence to the cache. It is freed if an error left it inconsistent."""
        sequence.busy = False
        if sequence in self._sequences:
            self._sequences.remove(sequence)
        if not self._reusable or not sequence.is_consistent():
            sequence.free()
            return
        for length in sorted(sequence.outputs)[: -self._MAX_OUTPUTS]:
            del sequence.outputs[length]
        self._sequences.append(sequence)
        self._evict()

    def clear(self) -> None:
        """Frees all idle sequences. Busy ones come back when their calls end."""
        for sequence in self._sequences:
            if not sequence.busy:
                sequence.free()
        self._sequences.clear()

    def set_max_size(self, max_size: int) -> None:
        """Changes the size limit, and evicts sequences as needed."""
        self._max_size = max_size
        self._evict()

    def _take(self, source: SequenceT | None, num_tokens: int, in_place: bool) -> SequenceT:
        if source is not None and in_place:
            source.truncate(num_tokens)
            return source
        sequence = self._new_sequence() if source is None else source.copy_prefix(num_tokens)
        if self._reusable:
            self._sequences.append(sequence)
            self._evict()
        return sequence

    def _evict(self) -> None:
        size = self.size()
        idle = [sequence for sequence in self._sequences if not sequence.busy]
        for num_left, sequence in zip(range(len(idle), 0, -1), idle, strict=True):
            if size <= self._max_size and num_left <= self._max_sequences:
                return
            size -= sequence.size()
            self._sequences.remove(sequence)
            sequence.free()


def _common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """Returns the length of the longest common prefix, by bisection over slices (whose comparison runs in C)."""
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
