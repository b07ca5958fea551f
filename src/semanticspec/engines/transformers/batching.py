"""Batched decoding: rows of several calls share forward passes.

A pass over a dozen rows takes about as long as over one, since moving the weights dominates.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import Cache

from semanticspec.engines.runtime.generation import DecodeCall
from semanticspec.engines.transformers.model_runner import ModelRunner

# Finished rows are removed once they are this share of the batch, since removal copies the KV cache of some others.
_FINISHED_SHARE = 0.25
# Common padding is removed once it is this share of the cache, since removal copies the KV cache of all rows.
_PADDING_SHARE = 0.25


class DecodeBatch:
    """Rows over one KV cache, aligned on the right. Shorter rows are padded on the left.

    Attributes:
        num_calls: calls that are decoding with this model, in this batch or on their own.
    """

    def __init__(self, runner: ModelRunner) -> None:
        self.num_calls = 0
        self._runner = runner
        self._calls: list[DecodeCall] = []
        self._cache: Cache | None = None
        self._padding: list[int] = []  # of each row

    @contextmanager
    def count_call(self) -> Iterator[None]:
        """Counts a call in `num_calls` while it decodes."""
        self.num_calls += 1
        try:
            yield
        finally:
            self.num_calls -= 1

    def join(self, call: DecodeCall, cache: Cache) -> None:
        """Adds a call's rows. Takes over `cache`, which holds what precedes their `next_ids`."""
        added_padding = 0
        if self._cache is None:
            self._cache = cache
        else:
            added_padding = self._cache.get_seq_length() - cache.get_seq_length()
            for layer, added in zip(self._cache.layers, cache.layers, strict=True):
                layer.join(added)
            self._padding = [padding + max(0, -added_padding) for padding in self._padding]
        self._padding += [max(0, added_padding)] * len(call.next_ids)
        self._calls.append(call)

    def step(self) -> None:
        """Runs one forward pass; every call advances by one token.

        If the pass fails, all calls fail. If processing its output fails for one call, only that call fails.
        """
        calls, cache = list(self._calls), self._cache
        assert cache is not None, "step on an empty batch"
        try:
            token_ids = calls[0].next_ids
            if len(calls) > 1:
                token_ids = torch.cat([call.next_ids for call in calls])
            output = self._runner.forward(token_ids, cache, self._padding)[:, -1]
            logits = self._runner.logits(output)
        except Exception as error:
            for call in calls:
                call.failure = error
            self._clear()
            return
        start = 0
        for call in calls:
            part = slice(start, start + len(call.next_ids))
            start = part.stop
            try:
                call.advance(output.states[part], logits[part])
            except Exception as error:
                call.failure = error
        num_active = sum(len(call.active_rows()) for call in calls)
        if start - num_active >= _FINISHED_SHARE * start:
            self._remove_finished()

    def leave(self, call: DecodeCall) -> None:
        """Removes a call's rows, if there are any."""
        if call in self._calls:
            self._remove_finished(leaving=call)

    def keys_values_of(self, call: DecodeCall, start: int, end: int) -> list[tuple[Tensor, Tensor]]:
        """Returns each layer's keys and values of tokens `start` to `end` of a call with a single row."""
        assert self._cache is not None
        index = sum(len(other.next_ids) for other in self._calls[: self._calls.index(call)])
        offset = self._padding[index]
        return [layer.row(index, offset + start, offset + end) for layer in self._cache.layers]

    def _remove_finished(self, leaving: DecodeCall | None = None) -> None:
        """Removes inactive rows, and the left padding that all remaining rows have in common if there is much of it."""
        assert self._cache is not None
        kept: list[int] = []
        calls: list[DecodeCall] = []
        start = 0
        for call in self._calls:
            num_rows = len(call.next_ids)
            rows = [] if call is leaving else call.active_rows()
            if rows:
                calls.append(call)
                call.select_rows(torch.tensor(rows, device=self._runner.device))
            kept += [start + row for row in rows]
            start += num_rows
        self._calls = calls
        if not kept:
            self._clear()
            return
        padding = [self._padding[index] for index in kept]
        common = min(padding)
        if common < _PADDING_SHARE * self._cache.get_seq_length():
            common = 0
        for layer in self._cache.layers:
            layer.select(kept, common)
        self._padding = [num_padding - common for num_padding in padding]

    def _clear(self) -> None:
        self._calls, self._cache, self._padding = [], None, []
