"""Models that cannot be loaded are refused with a one-line error."""

from __future__ import annotations

import importlib.util
import json
import shutil
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, LlamaConfig, LlamaForCausalLM, T5Config

from semanticspec.engines.transformers.engine import TransformersEngine
from semanticspec.errors import ConfigError, EngineError, ModelError, SemanticSpecError


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    config = LlamaConfig(
        vocab_size=31,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=123,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A copy of the model that a test may break."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture
def no_runner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def refused(kind: type[SemanticSpecError], model: Path | str, match: str, **options: str) -> None:
    with pytest.raises(kind, match=match) as caught:
        TransformersEngine.load(str(model), **{"device": "cpu"} | options)
    assert "\n" not in str(caught.value)


def test_loads_a_folder(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    info = TransformersEngine.load(str(folder), device="cpu").info
    assert info.model_id == str(folder)
    assert (info.hidden_size, info.num_layers, info.vocabulary_size) == (16, 2, 31)
    assert info.max_context_tokens == 123
    assert info.norm_state == "post"
    assert capfd.readouterr() == ("", ""), "loading must print nothing"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtype(folder: Path, dtype: str) -> None:
    engine = TransformersEngine.load(str(folder), device="cpu", dtype=dtype)
    assert next(engine._runner.model.parameters()).dtype == getattr(torch, dtype)


def test_revision_of_a_folder_follows_its_files(folder: Path, saved: Path) -> None:
    def revision(path: Path) -> str:
        return TransformersEngine.load(str(path), device="cpu").info.revision

    same = revision(saved)
    assert same
    assert revision(folder) == same, "the path does not matter"
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-4}))
    assert revision(folder) != same


@pytest.mark.usefixtures("no_runner")
@pytest.mark.parametrize("name", ["no-such-org/no-such-model", "nosuchmodel"])
def test_unknown_hub_name(name: str) -> None:
    refused(ModelError, name, f"cannot find the model '{name}'")


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "a/b/c", ""])
def test_missing_folder(name: str) -> None:
    refused(ModelError, name, "there is no folder")


def test_folder_without_config(tmp_path: Path) -> None:
    refused(ModelError, tmp_path, "is not a model: the folder has no config.json")


def test_a_file_that_is_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_text("hello")
    refused(ModelError, tmp_path / "model.txt", "is not a model")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"model_type": "no-such-type"}'])
def test_broken_config(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    refused(ModelError, folder, "is not a model")


def test_encoders_are_refused(tmp_path: Path) -> None:
    BertConfig(architectures=["BertForMaskedLM"]).save_pretrained(tmp_path)
    refused(ModelError, tmp_path, "is a BertForMaskedLM; expected a causal language model")


def test_encoder_decoders_are_refused(tmp_path: Path) -> None:
    T5Config(architectures=["T5ForConditionalGeneration"]).save_pretrained(tmp_path)
    refused(ModelError, tmp_path, "is a T5ForConditionalGeneration; expected a causal language model")


def test_truncated_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(ModelError, folder, r"model\.safetensors is broken")


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(ModelError, folder, "cannot load")


def test_missing_weights_are_not_initialized_at_random(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    refused(ModelError, folder, r"lacks 1 of its weights, among them model\.layers\.1\.mlp\.up_proj\.weight")


def test_weights_of_another_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 48}))
    refused(ModelError, folder, "cannot load")


def test_unknown_dtype(folder: Path) -> None:
    refused(ConfigError, folder, "dtype is 'int4'; expected auto, float32", dtype="int4")


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu:1", "mps:0", ""])
def test_unknown_device(folder: Path, device: str) -> None:
    refused(ConfigError, folder, "expected auto, cpu, cuda", device=device)


@pytest.mark.parametrize("device", ["cuda:99", "mps"])
def test_unavailable_device(folder: Path, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    refused(ConfigError, folder, f"device is '{device}'", device=device)


def test_settings_are_checked_before_the_model() -> None:
    refused(ConfigError, "no-such-org/no-such-model", "dtype", dtype="int4")


def test_missing_gguf(tmp_path: Path) -> None:
    refused(ModelError, tmp_path / "model.gguf", "there is no file")


@pytest.mark.parametrize("package", ["gguf", "accelerate"])
def test_gguf_without_its_packages(tmp_path: Path, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    lacking(monkeypatch, package)
    refused(EngineError, tmp_path / "model.gguf", rf"package {package}: pip install .*\[gguf\]")


def test_broken_gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking(monkeypatch, None)
    path = tmp_path / "model.gguf"
    path.write_bytes(b"something else")
    refused(ModelError, path, "is not a GGUF file")
    path.write_bytes(b"GGUF" + bytes(40))
    refused(ModelError, path, "cannot load")


def lacking(monkeypatch: pytest.MonkeyPatch, package: str | None) -> None:
    """Pretends that of the two packages for GGUF files, only `package` is missing."""
    find = importlib.util.find_spec

    def found(name: str, parent: str | None = None) -> ModuleSpec | None:
        if name in ("gguf", "accelerate"):
            return None if name == package else ModuleSpec(name, None)
        return find(name, parent)

    monkeypatch.setattr(importlib.util, "find_spec", found)
