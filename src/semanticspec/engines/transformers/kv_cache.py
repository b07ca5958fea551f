"""KV caches that can be cropped, copied and joined."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from semanticspec.engines.runtime.prefix_cache import CachedSequence, PositionOutput

_MIN_SPARE_TOKENS = 64
_MAX_SPARE_TOKENS = 1024


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """A KV cache layer with spare capacity: appending copies no old tokens, cropping is free.

    transformers' `DynamicLayer` concatenates at every token, and crops to views that keep the rest in memory.
    Buffers: `[row capacity, heads, capacity, head_dim]`. Layers that are joined also have room for further rows.

    A sliding window limits what `update` returns, not what is kept: a layer that dropped tokens before its window could
    not be cropped, and every call would prefill its whole context.

    Attributes:
        window: number of tokens that attention sees, the current one included; None = all.
    """

    def __init__(self, window: int | None = None) -> None:
        super().__init__()
        self.window = window
        self.is_sliding = (
            window is not None
        )  # read by transformers, which then masks what is before the window
        self.length = 0
        self._buffers: list[Tensor] = []
        self._keys = self._values = torch.empty(0)  # the buffers' rows in use

    def update(
        self, key_states: Tensor, value_states: Tensor, *_: object, **__: object
    ) -> tuple[Tensor, Tensor]:
        """Appends `[batch, heads, seq, head_dim]`; returns views of the keys and values that the new tokens see."""
        start, added = self.length, key_states.shape[2]
        end = start + added
        if not self._buffers:
            self.dtype, self.device, self.is_initialized = key_states.dtype, key_states.device, True
            self._buffers = [states[:, :, :0] for states in (key_states, value_states)]
            self._use_rows(len(key_states))
        if end > self._keys.shape[2]:
            self._reallocate(len(self._buffers[0]), end)
        self._keys.narrow(2, start, added).copy_(key_states)
        self._values.narrow(2, start, added).copy_(value_states)
        first = self._first_visible()
        self.length = end
        return self._keys.narrow(2, first, end - first), self._values.narrow(2, first, end - first)

    def get_mask_sizes(self, query: int | Tensor) -> tuple[int, int]:
        """Returns number and position of the keys that `update` will return for a number of new tokens.

        Older transformers 5 pass the positions of these tokens instead of their number.
        """
        num_new = query if isinstance(query, int) else len(query)
        first = self._first_visible()
        return self.length + num_new - first, first

    def _first_visible(self) -> int:
        """Returns the first position that the next token sees."""
        return 0 if self.window is None else max(0, self.length - self.window + 1)

    def get_seq_length(self) -> int:
        """Returns the number of cached tokens."""
        return self.length

    def crop(self, tokens_to_remove: int) -> None:
        """Removes the last tokens. transformers passes their number as a negative one."""
        self.length -= abs(tokens_to_remove)

    def num_bytes(self) -> int:
        """Returns the size of the buffers."""
        return sum(buffer.nbytes for buffer in self._buffers)

    def copied(self, num_tokens: int, rows: int = 1) -> GrowingLayer:
        """Returns a copy of the first `num_tokens` tokens of a layer with one row, repeated for `rows` rows."""
        layer = GrowingLayer(self.window)
        keys, values = self._keys[:, :, :num_tokens], self._values[:, :, :num_tokens]
        layer.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1))
        return layer

    def join(self, other: GrowingLayer) -> None:
        """Appends the rows of another layer. Shorter rows are padded with zeros on the left."""
        num_own, rows = len(self._keys), len(self._keys) + len(other._keys)
        length = max(self.length, other.length)
        row_capacity = len(self._buffers[0])
        if rows > row_capacity or length > self.length:
            shift = length - self.length
            self._reallocate(2 * rows if rows > row_capacity else row_capacity, length, shift)
        self._use_rows(rows)
        for own, added in ((self._keys, other._keys), (self._values, other._values)):
            own[num_own:, :, : length - other.length] = 0
            own[num_own:, :, length - other.length : length] = added[:, :, : other.length]

    def select(self, rows: Sequence[int], start: int = 0) -> None:
        """Keeps only these rows of the batch, in ascending order, without their first `start` positions."""
        for buffer in self._buffers:
            for place, row in enumerate(rows):
                if place != row:
                    buffer[place, :, : self.length] = buffer[row, :, : self.length]
        self._use_rows(len(rows))
        if start or 4 * len(rows) <= len(self._buffers[0]):
            self._reallocate(len(rows), self.length - start, -start)

    def row(self, index: int, start: int, end: int) -> tuple[Tensor, Tensor]:
        """Returns keys and values of one row's positions, views of shape `[1, heads, tokens, head_dim]`."""
        rows, positions = slice(index, index + 1), slice(start, end)
        return self._keys[rows, :, positions], self._values[rows, :, positions]

    def _use_rows(self, rows: int) -> None:
        self._keys, self._values = (buffer.narrow(0, 0, rows) for buffer in self._buffers)

    def _reallocate(self, row_capacity: int, needed: int, shift: int = 0) -> None:
        """Moves to buffers for `needed` positions and some more.

        Args:
            shift: moves all positions to the right, after zeros; or to the left if negative, dropping the first.
        """
        capacity = needed + min(max(needed // 4, _MIN_SPARE_TOKENS), _MAX_SPARE_TOKENS)
        rows, kept = len(self._keys), slice(max(0, -shift), self.length)
        self.length += shift
        for index, states in enumerate((self._keys, self._values)):
            buffer = states.new_empty((row_capacity, states.shape[1], capacity, states.shape[3]))
            buffer[:rows, :, : max(0, shift)] = 0
            buffer[:rows, :, max(0, shift) : self.length] = states[:, :, kept]
            self._buffers[index] = buffer
        self._use_rows(rows)


class TransformersSequence(CachedSequence):
    """A cached sequence with a transformers `Cache` of one row. Its size is in bytes."""

    def __init__(
        self,
        cache: Cache,
        token_ids: Sequence[int] = (),
        outputs: dict[int, PositionOutput] | None = None,
    ) -> None:
        super().__init__(token_ids, outputs)
        self.cache = cache

    def copy_prefix(self, num_tokens: int) -> TransformersSequence:
        cache = Cache(layers=[layer.copied(num_tokens) for layer in self.cache.layers])
        return TransformersSequence(cache, self.token_ids[:num_tokens], self.outputs_within(num_tokens))

    def repeated_cache(self, rows: int) -> Cache:
        """Returns a copy of the KV cache for a batch of `rows` continuations."""
        num_tokens = len(self.token_ids)
        return Cache(layers=[layer.copied(num_tokens, rows) for layer in self.cache.layers])

    def extended_by(self, token_ids: list[int], batch_cache: Cache, row: int) -> TransformersSequence:
        """Returns a new sequence with more tokens, copied from one row of a batch that extends this sequence."""
        whole = [*self.token_ids, *token_ids]
        layers = []
        for layer in batch_cache.layers:
            layers.append(GrowingLayer(layer.window))
            layers[-1].update(*layer.row(row, 0, len(whole)))
        sequence = TransformersSequence(Cache(layers=layers), whole, self.outputs)
        sequence.request_id = self.request_id
        return sequence

    def append(self, token_ids: list[int], keys_values: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Extends the sequence to `token_ids`, given each layer's keys and values of the added tokens."""
        for layer, (keys, values) in zip(self.cache.layers, keys_values, strict=True):
            layer.update(keys, values)
        self.token_ids[:] = token_ids

    def size(self) -> int:
        outputs = sum(output.num_bytes() for output in self.outputs.values())
        return outputs + sum(int(layer.num_bytes()) for layer in self.cache.layers)

    def is_consistent(self) -> bool:
        return all(layer.length == len(self.token_ids) for layer in self.cache.layers)

    def free(self) -> None:
        """Does nothing: the tensors are freed with the object."""

    def _truncate_cache(self, num_tokens: int) -> int:
        self.cache.crop(num_tokens - len(self.token_ids))
        return num_tokens
