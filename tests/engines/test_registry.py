"""Engines are chosen by name, with options of their own, and refused by name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from semanticspec.engines import registry as table
from semanticspec.engines.base import LoadRequest, StateSpec
from semanticspec.engines.registry import EngineChoice, EngineKind, load_engine
from semanticspec.errors import ConfigError, ModelError
from semanticspec.loading import load_model, load_pair


def test_a_name_alone_or_with_options() -> None:
    assert EngineChoice.parse("transformers") == EngineChoice("transformers", {})
    choice = EngineChoice.parse("llama-cpp:threads=4,gpu_layers=0")
    assert choice == EngineChoice("llama-cpp", {"threads": 4, "gpu_layers": 0})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("onnx", "there is no engine 'onnx'; choose from transformers, llama-cpp"),
        ("", "there is no engine ''"),
        ("llama-cpp:layers=3", "llama-cpp has no option 'layers'; choose from threads, gpu_layers"),
        ("llama-cpp:threads=two", "threads of the engine llama-cpp is 'two'; expected a whole number"),
        ("transformers:threads", "threads of the engine transformers is ''"),
    ],
)
def test_what_is_no_choice_is_refused_before_a_model_is_looked_for(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_model("no-such-org/no-such-model", engine=text)
    with pytest.raises(ConfigError, match=message):
        load_pair(draft_engine=text)


def test_another_engine_is_another_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[LoadRequest] = []

    def load(request: LoadRequest) -> object:
        asked.append(request)
        return "the engine"

    monkeypatch.setitem(table.ENGINES, "other", EngineKind(load, ("size",)))  # type: ignore[arg-type]
    found = load_engine(EngineChoice.parse("other:size=7").request("name", "auto", "cpu", StateSpec()))
    assert found == "the engine"
    assert asked == [LoadRequest("other", "name", "auto", "cpu", StateSpec(), {"size": 7})]


def test_llama_cpp_runs_gguf_files_only(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"runs \.gguf files, and some/model is none"):
        load_model("some/model", engine="llama-cpp")
    with pytest.raises(ModelError, match="there is no folder or file"):
        load_model(str(tmp_path / "model.gguf"), engine="llama-cpp")
    with pytest.raises(ModelError, match=r"python -m semanticspec\.demo\.gguf"):
        load_pair(target_engine="llama-cpp")


def test_the_table_is_light() -> None:
    code = (
        "import sys, semanticspec.engines.registry; "
        "print(sorted({'torch', 'transformers', 'llama_cpp', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
