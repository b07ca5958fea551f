"""States of segments with different lengths."""

from __future__ import annotations

import torch

from semanticspec.probes.states import Ragged, concatenated
from tests.support.collecting import (
    HIDDEN,
)


def ragged(lengths: tuple[int, ...] = (3, 0, 1, 5), seed: int = 0) -> tuple[Ragged, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randn(length, HIDDEN, generator=generator) for length in lengths]
    return Ragged.of(parts, HIDDEN), parts


def test_rows_are_selected_by_mask_by_indices_and_by_slice() -> None:
    states, parts = ragged()
    mask = torch.tensor([True, False, True, True])
    for rows, places in ((mask, [0, 2, 3]), ([3, 0, 3], [3, 0, 3]), (slice(1, 3), [1, 2]), ([], [])):
        chosen = states[rows]
        expected = Ragged.of([parts[place] for place in places], HIDDEN)
        assert torch.equal(chosen.values, expected.values)
        assert chosen.lengths.tolist() == expected.lengths.tolist() == [len(parts[place]) for place in places]
    both = concatenated([states, states[[2]]])
    assert isinstance(both, Ragged)
    assert torch.equal(both[[4]].values, parts[2])


def test_pooling_is_that_of_every_row_alone() -> None:
    states, parts = ragged((3, 1, 5))
    scores = torch.randn(9, generator=torch.Generator().manual_seed(1)) * 50
    weighted = [
        (score.softmax(0)[:, None] * part).sum(0)
        for score, part in zip(scores.split([3, 1, 5]), parts, strict=True)
    ]
    torch.testing.assert_close(states.mean(), torch.stack([part.mean(0) for part in parts]))
    assert torch.equal(states.last(), torch.stack([part[-1] for part in parts]))
    torch.testing.assert_close(states.attended(scores), torch.stack(weighted))
