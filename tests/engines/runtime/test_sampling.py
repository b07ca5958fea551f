"""Top-p truncation of large vocabularies equals that of transformers."""

from __future__ import annotations

import pytest
import torch
from transformers.generation import TopPLogitsWarper

from semanticspec.engines.runtime.sampling import Nucleus, Sampler
from semanticspec.records import Sampling


@pytest.mark.parametrize(
    "scale", [0.05, 0.5, 3.0, 8.0]
)  # nearly flat: the nucleus is larger than the candidates
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.95, 0.999])
@pytest.mark.parametrize("rows", [1, 3])
def test_the_nucleus_equals_that_of_transformers(scale: float, top_p: float, rows: int) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(rows, 10000, generator=generator)
    expected = TopPLogitsWarper(top_p)(logits, logits)
    found = Nucleus(top_p)(logits, logits)
    same = found == expected
    # Where the sum is within rounding of top_p, one token may differ.
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


@pytest.mark.parametrize("scale", [0.5, 1.5, 3.0])
def test_drawing_from_candidates_equals_drawing_from_the_whole_vocabulary(scale: float) -> None:
    generator = torch.Generator().manual_seed(1)
    sampler = Sampler(Sampling(temperature=0.6, top_p=0.95))
    logits = scale * torch.randn(1, 10000, generator=generator).expand(400, -1)
    uniforms = [(i + 0.5) / 400 for i in range(400)]
    token_ids, _ = sampler.draw(logits, uniforms)
    expected, probabilities = sampler.draw(logits, uniforms, keep_probabilities=True)
    assert torch.equal(token_ids, expected)
    assert probabilities is not None
    assert len(set(token_ids.flatten().tolist())) > 5
