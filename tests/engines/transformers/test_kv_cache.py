"""Joined, selected and cropped layers hold what separate layers hold."""

from __future__ import annotations

from random import Random

import torch
from torch import Tensor

from semanticspec.engines.transformers.kv_cache import GrowingLayer


def states(rows: int, tokens: int) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, 2, tokens, 3), torch.randn(rows, 2, tokens, 3)


def layer_of(keys: Tensor, values: Tensor) -> GrowingLayer:
    layer = GrowingLayer()
    layer.update(keys, values)
    return layer


def test_rows_that_join_and_leave_keep_their_keys_and_values() -> None:
    """Against a list of rows, right-aligned, over many random steps."""
    random = Random(0)
    torch.manual_seed(0)
    keys, values = states(1, 5)
    layer, rows = layer_of(keys, values), [(keys[0], values[0])]
    for _ in range(300):
        action = random.choice(["append", "append", "join", "leave"])
        if action == "append":
            added = states(len(rows), 1)
            seen = layer.update(*added)
            assert seen[0].shape == (len(rows), 2, layer.length, 3)
            rows = [
                (torch.cat((k, added[0][i]), 1), torch.cat((v, added[1][i]), 1))
                for i, (k, v) in enumerate(rows)
            ]
        elif action == "join" and len(rows) < 12:
            added = states(random.choice([1, 3]), random.randint(1, 2 * layer.length))
            layer.join(layer_of(*added))
            rows += list(zip(*added, strict=True))
        elif action == "leave" and len(rows) > 1:
            kept = sorted(random.sample(range(len(rows)), random.randint(1, len(rows))))
            rows = [rows[index] for index in kept]
            common = layer.length - max(k.shape[1] for k, _ in rows)
            start = random.choice([0, common])
            layer.select(kept, start)
        for index, (k, v) in enumerate(rows):
            found = layer.row(index, layer.length - k.shape[1], layer.length)
            assert torch.equal(found[0][0], k)
            assert torch.equal(found[1][0], v)


def test_joining_and_leaving_move_no_other_row() -> None:
    layer = layer_of(*states(1, 20))
    layer.join(layer_of(*states(1, 10)))
    places = [buffer.data_ptr() for buffer in layer._buffers]
    layer.join(layer_of(*states(2, 15)))
    layer.select([0, 1, 2])
    layer.update(*states(3, 1))
    assert [buffer.data_ptr() for buffer in layer._buffers] == places


def test_decoding_after_a_prefill_copies_nothing() -> None:
    layer = layer_of(*states(1, 200))
    places = [buffer.data_ptr() for buffer in layer._buffers]
    for _ in range(50):
        layer.update(*states(1, 1))
    assert [buffer.data_ptr() for buffer in layer._buffers] == places
    copy = layer.copied(200, rows=3)
    places = [buffer.data_ptr() for buffer in copy._buffers]
    copy.update(*states(3, 1))
    assert [buffer.data_ptr() for buffer in copy._buffers] == places
