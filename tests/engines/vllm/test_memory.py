"""Two models on one device share its memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, LlamaConfig

from semanticspec.engines.base import LoadRequest, StateSpec
from semanticspec.engines.registry import EngineChoice, share_devices
from semanticspec.engines.vllm import options as vllm_options
from semanticspec.errors import ConfigError
from tests.support.tiny_models import SIZES, save_model


def on_vllm(model: Path, device: str = "auto", **options: Any) -> LoadRequest:
    return EngineChoice("vllm", options).request(str(model), "auto", device, StateSpec())


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(vllm_options, "version", lambda _: "0.32.0")  # vLLM need not be installed
    save_model(tmp_path / "large", LlamaConfig(**SIZES | {"vocab_size": 200, "num_hidden_layers": 6}))
    return tmp_path / "large"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    save_model(tmp_path / "small", LlamaConfig(**SIZES))
    return tmp_path / "small"


def shares(*requests: LoadRequest) -> list[float | None]:
    return [request.options.get("gpu_memory_utilization") for request in share_devices(*requests)]


def test_two_models_share_a_device_by_their_weights(large: Path, small: Path) -> None:
    sizes = [AutoModelForCausalLM.from_pretrained(folder).num_parameters() for folder in (large, small)]
    wanted = 0.9 * sizes[1] / sum(sizes)
    assert wanted > 0.1
    found = shares(on_vllm(large), on_vllm(small))
    assert found == [pytest.approx(0.9 - wanted, abs=1e-3), pytest.approx(wanted, abs=1e-3)]
    assert shares(on_vllm(small), on_vllm(large)) == found[::-1]
    # On four GPUs, the small model's share is at its minimum.
    assert shares(on_vllm(large), on_vllm(small, tensor_parallel_size=4)) == [0.8, 0.1]


def test_a_given_share_leaves_the_rest_to_the_other_model(large: Path, small: Path) -> None:
    assert shares(on_vllm(large, gpu_memory_utilization=0.7), on_vllm(small)) == [0.7, 0.2]
    assert shares(on_vllm(large), on_vllm(small, gpu_memory_utilization=0.3)) == [0.6, 0.3]
    given = on_vllm(large, gpu_memory_utilization=0.6), on_vllm(small, gpu_memory_utilization=0.35)
    assert shares(*given) == [0.6, 0.35]


@pytest.mark.parametrize(
    ("of_target", "of_draft"),
    [
        ({"device": "cuda:0"}, {"device": "cuda:1"}),
        ({"tensor_parallel_size": 4}, {"device": "cuda:4"}),
        ({"kv_cache_memory_bytes": 1 << 30}, {}),
    ],
)
def test_models_that_do_not_share_devices_are_unchanged(
    of_target: dict[str, Any], of_draft: dict[str, Any], large: Path, small: Path
) -> None:
    requests = on_vllm(large, **of_target), on_vllm(small, **of_draft)
    assert share_devices(*requests) == requests


@pytest.mark.parametrize("given", [(0.8, 0.3), (0.9, None)])
def test_shares_that_do_not_fit_are_refused(
    given: tuple[float, float | None], large: Path, small: Path
) -> None:
    both = [{} if share is None else {"gpu_memory_utilization": share} for share in given]
    with pytest.raises(ConfigError, match=r"two models on the same device; .* or a device for each model"):
        share_devices(on_vllm(large, **both[0]), on_vllm(small, **both[1]))
