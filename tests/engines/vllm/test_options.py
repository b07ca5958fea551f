"""Options and supported versions of vLLM."""

from __future__ import annotations

import pytest

from semanticspec.engines.registry import EngineChoice
from semanticspec.engines.vllm import options as vllm_options
from semanticspec.engines.vllm.options import VllmOptions, check_version
from semanticspec.errors import ConfigError, EngineError
from semanticspec.loading import load_model, load_pair


def test_any_engine_argument_is_passed_on() -> None:
    choice = EngineChoice.parse(
        "vllm:tensor_parallel_size=4,gpu_memory_utilization=0.6,enforce_eager=true,load_format=auto"
    )
    assert choice.options == {
        "tensor_parallel_size": 4,
        "gpu_memory_utilization": 0.6,
        "enforce_eager": True,
        "load_format": "auto",
    }


def test_invalid_options_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="dtype is 'int4'"):
        VllmOptions(dtype="int4")
    with pytest.raises(ConfigError, match="speculative_config is set by semanticspec"):
        VllmOptions(arguments={"speculative_config": {}})
    assert VllmOptions(device="cuda").environment == {}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert VllmOptions(device="cuda:1").environment == {"CUDA_VISIBLE_DEVICES": "1"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert VllmOptions(device="cuda:1").environment == {"CUDA_VISIBLE_DEVICES": "7"}
    with pytest.raises(ConfigError, match="device is 'cuda:2', but CUDA_VISIBLE_DEVICES has 2 devices"):
        _ = VllmOptions(device="cuda:2").environment


@pytest.mark.parametrize(("found", "right"), [("0.32.0+cpu", True), ("0.31.9", False), ("0.33.0rc1", False)])
def test_unsupported_versions_are_refused(found: str, right: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_options, "version", lambda name: found)  # noqa: ARG005
    if right:
        assert check_version() == found
    else:
        with pytest.raises(EngineError, match=rf"vllm {found[:6]}.* is installed; .* supports >=0.32,<0.33"):
            check_version()


def test_a_missing_vllm_is_reported_before_models_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise vllm_options.PackageNotFoundError(name)

    monkeypatch.setattr(vllm_options, "version", version)
    with pytest.raises(EngineError, match=r"pip install .*\[vllm\]"):
        load_model("no/such-model", engine="vllm")
    with pytest.raises(EngineError, match=r"pip install .*\[vllm\]"):
        load_pair("no/such-model", "no/such-draft", target_engine="vllm", draft_engine="vllm")
