"""Int8 weights: close to the model's own numbers, on CPUs only."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from semanticspec.engines.transformers.engine import TransformersEngine
from semanticspec.engines.transformers.int8_weights import Int8Linear, use_int8_weights
from semanticspec.errors import ConfigError
from semanticspec.records import Sampling
from tests.support.tiny_models import SIZES, save_model

CONTEXT, CONTINUATION = [1, 2, 3], [4, 9, 30]


@pytest.fixture(scope="module", params=[True, False], ids=["tied head", "own head"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    config = LlamaConfig(**SIZES, initializer_range=0.3, tie_word_embeddings=request.param)
    save_model(path, config)
    return path


def distributions(folder: Path, **options: str) -> torch.Tensor:
    async def run() -> torch.Tensor:
        engine = TransformersEngine.load(str(folder), device="cpu", threads=1, **options)  # type: ignore[arg-type]
        sampling = Sampling(1.0, 1.0)
        (score,) = await engine.score(CONTEXT, [CONTINUATION], sampling=sampling, distributions=True)
        await engine.aclose()
        return torch.as_tensor(score.distributions)

    return asyncio.run(run())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_distributions_are_close(folder: Path, dtype: str) -> None:
    expected = distributions(folder, dtype="float32")
    overlap = torch.minimum(distributions(folder, dtype=dtype, weights="int8"), expected).sum(-1)
    assert overlap.min() > 0.9
    assert overlap.max() < 1


def test_a_linear_layer_keeps_its_bias_and_shape() -> None:
    linear = torch.nn.Linear(32, 12)
    states = torch.randn(2, 3, 32)
    with torch.inference_mode():
        torch.testing.assert_close(Int8Linear(linear)(states), linear(states), atol=0.05, rtol=0)


def test_other_forms_are_refused(folder: Path) -> None:
    with pytest.raises(ConfigError, match="weights is 'int3'; expected int8"):
        TransformersEngine.load(str(folder), weights="int3")


def test_devices_without_the_kernels_are_refused() -> None:
    model = torch.nn.Linear(2, 2, device="meta")
    model.device = torch.device("cuda:0")  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="runs on CPUs only, and the device is cuda:0"):
        use_int8_weights(model)
