"""Quantized weights: close to the model's own numbers for few rows, equal to them for many."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from semanticspec.engines.transformers.engine import TransformersEngine
from semanticspec.engines.transformers.quantized_weights import MAX_ROWS, QuantizedLinear
from semanticspec.errors import ConfigError
from semanticspec.records import Sampling, Stop
from tests.support.distributions import dense
from tests.support.tiny_models import SIZES, save_model

CONTEXT = [1, 2, 3, 4, 9, 30, 7, 8]
WARM = Sampling(1.0, 1.0)


@pytest.fixture(scope="module", params=[True, False], ids=["tied head", "own head"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    sizes = {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 96}
    save_model(path, LlamaConfig(**SIZES | sizes, initializer_range=0.1, tie_word_embeddings=request.param))
    return path


def load(folder: Path, **options: str) -> TransformersEngine:
    options = {"dtype": "bfloat16", "device": "cpu"} | options
    return TransformersEngine.load(str(folder), threads=1, **options)  # type: ignore[arg-type]


def continuation(folder: Path, num_rows: int, **options: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Distributions of `num_rows` tokens scored in one pass after a cached context, without and with `options`."""

    async def run(**chosen: str) -> torch.Tensor:
        engine = load(folder, **chosen)
        await engine.generate(CONTEXT, max_tokens=1, stop=Stop(), sampling=WARM, request_id="r")
        ids = [list(range(10, 10 + num_rows))]
        (score,) = await engine.score(CONTEXT, ids, sampling=WARM, distributions=True, request_id="r")
        await engine.aclose()
        return dense(score.distributions, 64)

    return asyncio.run(run()), asyncio.run(run(**options))


@pytest.mark.parametrize(("form", "overlap"), [("int8", 0.98), ("int4", 0.85)])
def test_few_rows_are_close_to_the_model(folder: Path, form: str, overlap: float) -> None:
    expected, found = continuation(folder, 2, weights=form)
    assert not torch.equal(found[1:], expected[1:])
    assert torch.minimum(found, expected).sum(-1).min() > overlap


@pytest.mark.parametrize("form", ["int8", "int4"])
def test_many_rows_use_the_models_own_weights(folder: Path, form: str) -> None:
    expected, found = continuation(folder, MAX_ROWS + 1, weights=form)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("form", ["int8", "int4"])
@pytest.mark.parametrize("bias", [True, False])
def test_a_layer(form: str, bias: bool) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(64, 32, bias=bias, dtype=torch.bfloat16)
    states = torch.randn(1, 3, 64, dtype=torch.bfloat16)
    with torch.inference_mode():
        layer = QuantizedLinear(linear, linear, form)
        assert torch.equal(layer(states), linear(states)), "not in use yet"
        layer.max_rows = 4
        found, expected = layer(states), linear(states)
    assert found.shape == expected.shape
    assert (found - expected).float().norm() / expected.float().norm() < 0.15


def test_a_cut_head_can_be_quantized(folder: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.txt"
    kept.write_text("\n".join(map(str, range(32))))
    _, found = continuation(folder, 2, weights="int4", head_tokens=str(kept))
    assert not found[:, 32:].any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "int3"}, "weights is 'int3'; expected int8 or int4"),
        ({"weights": "int8", "dtype": "float32"}, "needs bfloat16 on a CPU, and the model is float32 on cpu"),
    ],
)
def test_other_models_and_forms_are_refused(folder: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(folder, **options)


def test_kernels_that_give_other_numbers_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torch, "_weight_int8pack_mm", lambda rows, weight, _: rows.new_zeros(len(rows), len(weight))
    )
    with pytest.raises(ConfigError, match=r"this build of torch cannot run \(relative error 1"):
        load(folder, weights="int8")
