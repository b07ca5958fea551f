"""Key/value caches that can be cut back, and what `cache_pool` keeps of a call: one with its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from semanticspec.engines.runtime.prefix_cache import Mark

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
        rows, places = slice(index, index + 1), slice(start, end)
        return self._key_buffer[rows, :, places], self._value_buffer[rows, :, places]

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


@dataclass(slots=True, eq=False)
class CachedSequence:
    """A token sequence with its cache, see `cache_pool.KeptSequence`."""

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

    def size(self) -> int:
        """Bytes."""
        kept = sum(mark.num_bytes() for mark in self.marks.values())
        return kept + sum(int(layer.num_bytes()) for layer in self.cache.layers)

    def in_order(self) -> bool:
        return all(layer.length == len(self.token_ids) for layer in self.cache.layers)

    def free(self) -> None:
        """Nothing: its memory goes with it."""
