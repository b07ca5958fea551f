"""Sparse distributions equal those of transformers' warpers over the whole vocabulary."""

from __future__ import annotations

import math
from random import Random

import pytest
import torch
from torch import Tensor
from transformers.generation import TemperatureLogitsWarper, TopPLogitsWarper

from semanticspec.distributions import Distribution
from semanticspec.engines.runtime import sampling as module
from semanticspec.engines.runtime.sampling import Sampler, argmax
from semanticspec.errors import EngineError
from semanticspec.records import GREEDY, Sampling
from tests.support.distributions import dense

SIZES = (7, 61, 10_000, 151_936)


def reference(logits: Tensor, sampling: Sampling) -> Tensor:
    """The distributions `[rows, vocabulary]` over a sorted vocabulary, float64."""
    logits = logits.double()
    if sampling.temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).double()
    if sampling.temperature != 1:
        logits = TemperatureLogitsWarper(float(sampling.temperature))(logits, logits)
    if sampling.top_p < 1:
        logits = TopPLogitsWarper(sampling.top_p)(logits, logits)
    return logits.softmax(-1)


def random_logits(size: int, rows: int = 3, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(rows, size, generator=torch.Generator().manual_seed(size))


def check(logits: Tensor, sampling: Sampling) -> list[Distribution]:
    """Compares with the reference; where the sum is within rounding of top_p, one token may differ."""
    found = [position.distribution for position in Sampler(sampling).positions(logits)]
    expected = reference(logits, sampling)
    rows = dense(found, logits.shape[-1]).double()
    assert int(((rows > 0) != (expected.float() > 0)).sum()) <= len(rows) * (sampling.top_p < 1)
    torch.testing.assert_close(rows, expected, atol=1e-3, rtol=0)
    for row in found:
        assert (row.token_ids[1:] > row.token_ids[:-1]).all()
        assert float(row.probabilities.sum()) == pytest.approx(1, abs=1e-4)
    return found


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("temperature", [0, 0.3, 0.6, 1.0, 1.7])
@pytest.mark.parametrize("size", SIZES)
def test_distributions_equal_those_over_the_whole_vocabulary(
    size: int, temperature: float, top_p: float
) -> None:
    check(random_logits(size), Sampling(temperature, top_p))


@pytest.mark.parametrize("scale", [0.0, 0.05, 0.5, 8.0])
@pytest.mark.parametrize("top_p", [0.05, 0.95, 0.999])
def test_nuclei_larger_than_the_candidates(scale: float, top_p: float) -> None:
    logits = random_logits(10_000, scale=scale)
    if scale == 0:  # any token may be in it: only their number counts
        (row, *_) = [position.distribution for position in Sampler(Sampling(1.0, top_p)).positions(logits)]
        assert int((row.probabilities > 0).sum()) == pytest.approx(10_000 * top_p, abs=1)
        return
    check(logits, Sampling(1.0, top_p))


def test_rows_with_different_nuclei() -> None:
    logits = torch.zeros(3, 10_000)
    logits[0, 7] = logits[2, 1] = logits[2, 2] = 30.0
    first, flat, pair = [
        position.distribution.dense(10_000).nonzero()[0].tolist()
        for position in Sampler(Sampling(1.0, 0.9)).positions(logits)
    ]
    assert (first, pair) == ([7], [1, 2])
    assert len(flat) == pytest.approx(9000, abs=1)


@pytest.mark.parametrize("size", SIZES)
def test_ties_are_cut_by_the_mass_alone(size: int) -> None:
    logits = random_logits(size, 1).round()
    for top_p in (0.3, 0.6, 0.9):
        (row,) = [position.distribution for position in Sampler(Sampling(0.6, top_p)).positions(logits)]
        expected = reference(logits, Sampling(0.6, top_p))[0]
        found = torch.from_numpy(row.dense(size)).sort().values
        torch.testing.assert_close(found, expected.sort().values, atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_greedy_takes_the_first_of_the_most_probable_tokens(size: int) -> None:
    logits = torch.full((2, size), -1.0)
    logits[0, [3, size - 1]] = logits[1, [size - 2, size - 1]] = 5.0
    for position, expected in zip(Sampler(GREEDY).positions(logits), (3, size - 2), strict=True):
        assert position.draw(0.999)[0] == expected
    assert argmax(logits).tolist() == [3, size - 2]


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(0.6, 0.95), Sampling(1.0, 1.0)])
def test_impossible_tokens_are_never_drawn(sampling: Sampling) -> None:
    logits = torch.full((1, 151_936), -torch.inf)
    logits[0, [5, 70_000]] = torch.tensor([1.0, 0.5])
    (position,) = Sampler(sampling).positions(logits)
    drawn = {position.draw(i / 100)[0] for i in range(100)} | {position.draw(1 - 1e-16)[0]}
    assert drawn == ({5} if sampling is GREEDY else {5, 70_000})
    check(logits, sampling)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(0.6, 0.95), Sampling(1.0, 1.0)])
def test_logits_that_are_not_numbers_are_an_error(sampling: Sampling) -> None:
    logits = random_logits(10_000)
    logits[1, 9] = torch.nan
    with pytest.raises(EngineError, match="NaN"):
        Sampler(sampling).positions(logits)


@pytest.mark.parametrize("temperature", [1e-6, 1e-30])
def test_a_temperature_near_zero_is_greedy(temperature: float) -> None:
    logits = random_logits(151_936) + 40
    for position, expected in zip(
        Sampler(Sampling(temperature, 0.95)).positions(logits), argmax(logits).tolist(), strict=True
    ):
        assert position.draw(0.5)[0] == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(0.6, 0.95), Sampling(1.0, 0.9), Sampling(1.5, 1.0)])
def test_drawn_tokens_invert_the_cdf_and_have_their_raw_log_probabilities(
    sampling: Sampling, dtype: torch.dtype
) -> None:
    logits = random_logits(151_936, 2, 4.0).to(dtype)
    logprobs = logits.double().log_softmax(-1)
    for row, position in enumerate(Sampler(sampling).positions(logits)):
        cumulative = position.distribution.dense(151_936).cumsum(dtype=float)
        cumulative /= cumulative[-1]
        for i in range(200):
            uniform = (i + 0.5) / 200
            token_id, logprob = position.draw(uniform)
            assert (cumulative[token_id - 1] if token_id else 0.0) <= uniform < cumulative[token_id]
            assert logprob == pytest.approx(float(logprobs[row, token_id]), abs=1e-4)


def test_chunks_and_growth_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = random_logits(10_000, 9)
    whole = check(logits, Sampling(1.0, 0.9))
    monkeypatch.setattr(module, "_CHUNK_VALUES", {"cpu": 20_000})
    monkeypatch.setattr(module, "_NUM_CANDIDATES", 2)
    monkeypatch.setattr(module, "_GROWTH", 3)
    torch.testing.assert_close(dense(check(logits, Sampling(1.0, 0.9)), 10_000), dense(whole, 10_000))


@pytest.mark.parametrize("size", [3, 200])
@pytest.mark.parametrize("top_p", [0.6, 1.0])
def test_residuals_equal_the_difference_of_dense_rows(size: int, top_p: float) -> None:
    random = Random(size)
    logits = random_logits(size, 2, 2.0)
    target, draft = check(logits, Sampling(1.0, top_p))
    expected = (target.dense(size) - draft.dense(size)).clip(min=0)
    residual = target.residual(draft)
    assert residual.dense(size) == pytest.approx(expected, abs=1e-12)
    for _ in range(300):
        uniform = random.random()
        drawn = int((expected.cumsum() <= uniform * expected.sum()).sum())
        assert residual.draw(uniform) == drawn
    assert target.residual(target) is target


def test_distributions_of_tokens_they_do_not_hold() -> None:
    row = Distribution.of_dense([0.0, 0.25, 0.0, 0.75])
    assert row.token_ids.tolist() == [1, 3]
    assert row.of([0, 1, 2, 3, 9]).tolist() == [0, 0.25, 0, 0.75, 0]
    assert float(row.of(3)) == 0.75
    empty = Distribution.of_dense([0.0])
    assert empty.of([0, 1]).tolist() == [0, 0]
    assert row.residual(empty).dense(4).tolist() == [0, 0.25, 0, 0.75]
    assert math.isclose(row.draw(0.2), 1)
