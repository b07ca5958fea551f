"""What is kept of earlier calls: key/value caches that can be cut back, and a bounded pool of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional
from transformers import Cache
from transformers.cache_utils import DynamicLayer

_MIN_CAPACITY_TOKENS = 64


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """A cache layer in a buffer with room to spare: appending copies nothing old, cutting back is free.

    transformers' own layer concatenates at every token and crops to views that keep the cut-off part alive.
    Buffers: `[batch, heads, capacity, head]`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.length = 0
        self._capacity = 0
        self._key_buffer = torch.empty(0)
        self._value_buffer = torch.empty(0)

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Appends `[batch, heads, seq, head]` and returns views of all that is cached."""
        start, added = self.length, key_states.shape[2]
        end = start + added
        if end > self._capacity:
            self._grow(key_states, value_states, end)
        self._key_buffer.narrow(2, start, added).copy_(key_states)
        self._value_buffer.narrow(2, start, added).copy_(value_states)
        self.length = end
        return self._key_buffer.narrow(2, 0, end), self._value_buffer.narrow(2, 0, end)

    def get_seq_length(self) -> int:
        return self.length

    def crop(self, tokens_to_remove: int) -> None:
        """Forgets the last `-tokens_to_remove` tokens (transformers counts them negative)."""
        self.length -= abs(tokens_to_remove)

    def num_bytes(self) -> int:
        return self._key_buffer.nbytes + self._value_buffer.nbytes

    def copied(self, num_tokens: int, rows: int = 1) -> GrowingLayer:
        """A layer of its own with the first `num_tokens` tokens, `rows` times (of a layer with one row)."""
        layer = GrowingLayer()
        keys, values = self._key_buffer[:, :, :num_tokens], self._value_buffer[:, :, :num_tokens]
        layer.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1))
        return layer

    def join(self, other: GrowingLayer) -> None:
        """Adds the rows of another layer. Both are aligned at their ends: zeros stand before the shorter rows."""
        length = max(self.length, other.length)
        keys, values = (
            torch.cat([functional.pad(part, (0, 0, length - part.shape[2], 0)) for part in both])
            for both in (
                (self._key_buffer[:, :, : self.length], other._key_buffer[:, :, : other.length]),
                (self._value_buffer[:, :, : self.length], other._value_buffer[:, :, : other.length]),
            )
        )
        self._hold(keys, values)

    def select(self, rows: Tensor, start: int = 0) -> None:
        """Keeps only these rows of the batch, and of them the tokens from `start`."""
        self._hold(
            self._key_buffer[rows, :, start : self.length], self._value_buffer[rows, :, start : self.length]
        )

    def row(self, index: int, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Keys and values of some tokens of one row, `[1, heads, tokens, head]` each, as views."""
        return self._key_buffer[index : index + 1, :, start:end], self._value_buffer[
            index : index + 1, :, start:end
        ]

    def _hold(self, keys: Tensor, values: Tensor) -> None:
        """Replaces all that is cached."""
        self.length = self._capacity = keys.shape[2]
        self._key_buffer, self._value_buffer = keys, values

    def _grow(self, keys: Tensor, values: Tensor, needed: int) -> None:
        self._capacity = max(_MIN_CAPACITY_TOKENS, needed, min(2 * self._capacity, needed + 1024))
        buffers = [
            like.new_empty((like.shape[0], like.shape[1], self._capacity, like.shape[3]))
            for like in (keys, values)
        ]
        if self.length:
            for buffer, old in zip(buffers, (self._key_buffer, self._value_buffer), strict=True):
                buffer[:, :, : self.length] = old[:, :, : self.length]
        self._key_buffer, self._value_buffer = buffers
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True


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


@dataclass(slots=True, eq=False)
class CachedSequence:
    """A token sequence with its cache.

    Attributes:
        token_ids: the tokens whose keys and values are in `cache`.
        marks: by number of tokens read. A context that ends at a mark needs no forward pass at all.
        request_id: who used it last.
        busy: a call is working on it; it may be copied from, never cut.
    """

    cache: Cache
    token_ids: list[int] = field(default_factory=list)
    marks: dict[int, Mark] = field(default_factory=dict)
    request_id: str | None = None
    busy: bool = True

    def cut(self, num_tokens: int) -> None:
        """Forgets all but the first `num_tokens` tokens; nothing is copied."""
        surplus = len(self.token_ids) - num_tokens
        if surplus > 0:
            self.cache.crop(-surplus)
            del self.token_ids[num_tokens:]
            self.marks = {length: mark for length, mark in self.marks.items() if length <= num_tokens}

    def extended(self, cache: Cache, index: int, token_ids: list[int]) -> CachedSequence:
        """A sequence of its own with more tokens, from row `index` of a cache that holds both."""
        whole = [*self.token_ids, *token_ids]
        layers = []
        for layer in cache.layers:
            layers.append(GrowingLayer())
            layers[-1].update(*layer.row(index, 0, len(whole)))
        return CachedSequence(Cache(layers=layers), whole, dict(self.marks), self.request_id)

    def append(self, token_ids: list[int], read: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Makes it hold `token_ids`, given each layer's keys and values of those that it lacks."""
        for layer, (keys, values) in zip(self.cache.layers, read, strict=True):
            layer.update(keys, values)
        self.token_ids[:] = token_ids

    def copied(self, num_tokens: int) -> CachedSequence:
        """A sequence of its own with the first `num_tokens` tokens."""
        return CachedSequence(
            cache=Cache(layers=[layer.copied(num_tokens) for layer in self.cache.layers]),
            token_ids=self.token_ids[:num_tokens],
            marks={length: mark for length, mark in self.marks.items() if length <= num_tokens},
        )

    def expanded(self, rows: int) -> Cache:
        """The cache, copied for a batch of `rows` continuations."""
        num_tokens = len(self.token_ids)
        return Cache(layers=[layer.copied(num_tokens, rows) for layer in self.cache.layers])

    def num_bytes(self) -> int:
        kept = sum(mark.num_bytes() for mark in self.marks.values())
        return kept + sum(int(layer.num_bytes()) for layer in self.cache.layers)


class CachePool:
    """The caches of recent calls, least recently used out, bounded in bytes and in number.

    Used from the engine's worker thread only. A sequence is taken by `acquire` and brought back by `release`.
    """

    # Kept per sequence: one where a scored continuation begins (to go on from there when it is rejected), one
    # where it ends (to go on from there when it is accepted).
    _MAX_MARKS = 2

    def __init__(
        self, new_cache: Callable[[], Cache], *, reusable: bool, max_bytes: int, max_sequences: int
    ) -> None:
        self._new_cache = new_cache
        self._reusable = reusable
        self._max_bytes = max_bytes
        self._max_sequences = max_sequences
        self._sequences: list[CachedSequence] = []  # least recently used first

    def __len__(self) -> int:
        return len(self._sequences)

    def num_bytes(self) -> int:
        return sum(sequence.num_bytes() for sequence in self._sequences)

    def acquire(self, token_ids: list[int], num_context: int, request_id: str | None) -> CachedSequence:
        """A sequence that holds a prefix of the first `num_context` of `token_ids`, as long as can be had.

        It holds the whole context only if it also has the mark there; else at most all but its last token,
        which has to be read again. A kept sequence is cut in place when nothing of worth goes with the
        cut-off part: the same request is done with it (a rejected draft), or the caller is about to write
        the same tokens again. Else its prefix is copied, so that requests with one prompt do not spoil each
        other.
        """
        best: CachedSequence | None = None
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

    def release(self, sequence: CachedSequence) -> None:
        """Keeps the sequence for later calls, unless an error left it in disorder."""
        sequence.busy = False
        if sequence in self._sequences:
            self._sequences.remove(sequence)
        expected = len(sequence.token_ids)
        if not self._reusable or any(layer.length != expected for layer in sequence.cache.layers):
            return
        for length in sorted(sequence.marks)[: -self._MAX_MARKS]:
            del sequence.marks[length]
        self._sequences.append(sequence)
        self._evict()

    def clear(self) -> None:
        self._sequences.clear()

    def _taken(self, source: CachedSequence | None, usable: int, in_place: bool) -> CachedSequence:
        if source is None:
            sequence = CachedSequence(self._new_cache())
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
        num_bytes = self.num_bytes()
        for sequence in [kept for kept in self._sequences if not kept.busy]:
            if num_bytes <= self._max_bytes and len(self._sequences) <= self._max_sequences:
                return
            num_bytes -= sequence.num_bytes()
            self._sequences.remove(sequence)


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
