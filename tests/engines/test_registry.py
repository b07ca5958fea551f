"""Engines are chosen by name, with options."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from semanticspec.engines import registry
from semanticspec.engines.base import LoadRequest, StateSpec
from semanticspec.engines.registry import EngineChoice, EngineKind, load_engine
from semanticspec.errors import ConfigError, ModelError
from semanticspec.loading import load_model, load_pair


def test_a_name_with_and_without_options() -> None:
    assert EngineChoice.parse("transformers") == EngineChoice("transformers", {})
    choice = EngineChoice.parse("llama-cpp:threads=4,gpu_layers=0")
    assert choice == EngineChoice("llama-cpp", {"threads": 4, "gpu_layers": 0})
    choice = EngineChoice.parse("hf:head_tokens=tokens/16.txt,threads=2")
    assert choice == EngineChoice("transformers", {"head_tokens": "tokens/16.txt", "threads": 2})


@pytest.mark.parametrize(
    ("name", "spellings"),
    [
        ("llama-cpp", ["llama-cpp", "llama.cpp", "llama_cpp", "llamacpp", "Llama.cpp"]),
        ("transformers", ["transformers", "hf", "HF", "huggingface"]),
        ("vllm", ["vllm", "vLLM"]),
    ],
)
def test_usual_spellings_of_an_engine(name: str, spellings: list[str]) -> None:
    assert {EngineChoice.parse(spelling).name for spelling in spellings} == {name}
    assert EngineChoice.parse("llama.cpp:threads=2") == EngineChoice("llama-cpp", {"threads": 2})


@pytest.mark.parametrize(
    ("model", "installed", "engine"),
    [
        ("model.gguf", True, "llama-cpp"),
        ("model.gguf", False, "transformers"),
        ("some/model", True, "transformers"),
        ("/a/folder", True, "transformers"),
    ],
)
def test_auto_is_llama_cpp_for_a_gguf_file_where_it_is_installed(
    model: str, installed: bool, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda _: object() if installed else None)
    assert EngineChoice.parse("auto").for_model(model) == EngineChoice(engine)
    assert EngineChoice.parse("hf").for_model(model).name == "transformers"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("onnx", "there is no engine 'onnx'; choose from auto, transformers, llama-cpp"),
        ("", "there is no engine ''"),
        ("auto:threads=4", "the engine 'auto:threads=4' has options; name the engine that they are for"),
        ("llama-cpp:layers=3", "llama-cpp has no option 'layers'; choose from threads, gpu_layers"),
        ("llama-cpp:threads=two", "threads of the engine llama-cpp is 'two'; expected a whole number"),
        ("transformers:threads", "threads of the engine transformers is ''"),
        (
            "transformers:head_tokens=",
            "head_tokens of the engine transformers is ''; expected a text",
        ),
    ],
)
def test_invalid_choices_are_refused_before_models_are_loaded(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_model("no-such-org/no-such-model", engine=text)
    with pytest.raises(ConfigError, match=message):
        load_pair(draft_engine=text)


def test_a_new_engine_is_a_new_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[LoadRequest] = []

    def load(request: LoadRequest) -> object:
        requests.append(request)
        return "the engine"

    monkeypatch.setitem(registry.ENGINES, "other", EngineKind(load, options=("size",)))  # type: ignore[arg-type]
    found = load_engine(EngineChoice.parse("other:size=7").request("name", "auto", "cpu", StateSpec()))
    assert found == "the engine"
    assert requests == [LoadRequest("other", "name", "auto", "cpu", StateSpec(), {"size": 7})]


def test_llama_cpp_needs_a_gguf_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"needs a \.gguf file, got some/model"):
        load_model("some/model", engine="llama-cpp")
    with pytest.raises(ModelError, match="there is no folder or file"):
        load_model(str(tmp_path / "model.gguf"), engine="llama-cpp")
    with pytest.raises(ModelError, match=r"python -m semanticspec\.demo\.gguf"):
        load_pair(target_engine="llama-cpp")


@pytest.mark.parametrize(
    "module", ["semanticspec", "semanticspec.engines.registry", "semanticspec.engines.scripted"]
)
def test_importing_loads_no_engine(module: str) -> None:
    heavy = "{'torch', 'transformers', 'llama_cpp', 'vllm', 'numpy'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
