"""Finds and loads GGUF files for llama.cpp. Problems are reported early, in one line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from semanticspec.engines.base import LAST_LAYER, StateSpec
from semanticspec.engines.llama_cpp.cut_head import cut_model
from semanticspec.engines.llama_cpp.library import LOG, import_llama_cpp
from semanticspec.engines.llama_cpp.model_runner import ModelRunner
from semanticspec.engines.llama_cpp.options import DEFAULT_CONTEXT_TOKENS, LlamaOptions, LlamaSettings
from semanticspec.engines.runtime.threads import num_threads_for
from semanticspec.errors import ConfigError, ModelError
from semanticspec.text.gguf_files import gguf_digest

_ALL_LAYERS = 999


def load_runner(model: str, options: LlamaOptions, states: StateSpec) -> tuple[ModelRunner, str]:
    """Loads a GGUF file and allocates its KV cache.

    Returns:
        The model runner, and a digest of the file.

    Raises:
        ConfigError: The options do not fit the model or this build of llama.cpp, or another layer is selected.
        ModelError: The file does not exist, or llama.cpp cannot run it.
        EngineError: llama-cpp-python is not installed, or the KV cache does not fit in memory.
    """
    if states.layer != LAST_LAYER:
        raise ConfigError(
            f"layer is {states.layer}, but llama.cpp gives the last layer's states only (-1); "
            "use the engine transformers, or a probe of the last layer"
        )
    digest = gguf_digest(model)
    llama = import_llama_cpp()
    on_gpu = llama.llama_supports_gpu_offload() and options.device != "cpu"
    if (options.device not in ("auto", "cpu") or options.gpu_layers) and not on_gpu:
        raise ConfigError(
            f"device is {options.device!r} with {options.gpu_layers or 'all'} GPU layers, but the device is cpu or "
            "llama.cpp was built without GPU support; use device cpu, or build llama-cpp-python with GPU support"
        )
    params = llama.llama_model_default_params()
    params.n_gpu_layers = (_ALL_LAYERS if options.gpu_layers is None else options.gpu_layers) * on_gpu
    cut = cut_model(model, options.head_tokens) if options.head_tokens is not None else None
    path = Path(model).expanduser() if cut is None else cut.path
    LOG.clear()
    handle = llama.llama_model_load_from_file(os.fsencode(path), params)
    if not handle:
        raise ModelError(f"llama.cpp cannot load {model}: {LOG.last()}")
    try:
        _check_architecture(llama, handle, model)
        runner = ModelRunner(handle, _settings(llama, handle, options, on_gpu), cut)
    except BaseException:
        llama.llama_model_free(handle)
        raise
    if cut is not None and not runner.embeddings_work():
        runner.close()
        raise ModelError(
            f"llama.cpp changes the token embeddings of {model}: its head cannot be cut; omit head_tokens"
        )
    return runner, digest


def _check_architecture(llama: Any, handle: Any, model: str) -> None:
    """Raises ModelError for models whose cache cannot be truncated, and for models that are not causal LMs."""
    if llama.llama_model_is_recurrent(handle) or llama.llama_model_is_hybrid(handle):
        raise ModelError(
            f"{model} has a recurrent state, which cannot be truncated; use the engine transformers for it"
        )
    if llama.llama_model_has_encoder(handle) or llama.llama_model_is_diffusion(handle):
        raise ModelError(f"{model} is an encoder or diffusion model; expected a causal language model")


def _settings(llama: Any, handle: Any, options: LlamaOptions, on_gpu: bool) -> LlamaSettings:
    """Fills in the options that depend on the model."""
    limit = llama.llama_model_n_ctx_train(handle)
    context_tokens = options.context_tokens or min(limit, DEFAULT_CONTEXT_TOKENS)
    if context_tokens > limit:
        raise ConfigError(
            f"context_tokens is {context_tokens}, but the model was trained for {limit}; use {limit} or less"
        )
    cache_tokens = options.cache_tokens or 2 * context_tokens
    if cache_tokens < context_tokens:
        raise ConfigError(
            f"cache_tokens is {cache_tokens}, but one call may take {context_tokens}; use {context_tokens} or more"
        )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return LlamaSettings(
        exact=options.dtype == "float32",
        on_gpu=on_gpu,
        threads=num_threads_for(llama.llama_model_n_params(handle), options.threads, cores),
        context_tokens=context_tokens,
        cache_tokens=cache_tokens,
    )
