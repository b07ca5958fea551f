"""The nucleus of large vocabularies is that of transformers."""

from __future__ import annotations

import pytest
import torch
from transformers.generation import TopPLogitsWarper

from semanticspec.engines.sampling import Nucleus


@pytest.mark.parametrize(
    "scale", [0.05, 0.5, 3.0, 8.0]
)  # nearly flat: the nucleus is larger than the candidates
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.95, 0.999])
@pytest.mark.parametrize("rows", [1, 3])
def test_is_the_one_of_transformers(scale: float, top_p: float, rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(rows, 10000, generator=generator)
    expected = TopPLogitsWarper(top_p)(logits, logits)
    found = Nucleus(top_p)(logits, logits)
    same = found == expected
    # Where the sum meets top_p to the last digits, rounding may decide about one token.
    assert int((~same).sum()) <= rows
    torch.testing.assert_close(found.softmax(-1), expected.softmax(-1), atol=1e-3, rtol=0)


def test_rows_with_different_nuclei() -> None:
    logits = torch.zeros(2, 10000)
    logits[0, 7] = 30.0
    found = Nucleus(0.9)(logits, logits)
    assert found[0].isfinite().nonzero().flatten().tolist() == [7]
    assert int(found[1].isfinite().sum()) == 9000
    peaked = torch.zeros(2, 10000)
    peaked[0, 7], peaked[1, [1, 2]] = 30.0, 30.0
    assert [row.isfinite().nonzero().flatten().tolist() for row in Nucleus(0.9)(peaked, peaked)] == [
        [7],
        [1, 2],
    ]
