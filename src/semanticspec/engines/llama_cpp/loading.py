"""Finding and loading a GGUF file with llama.cpp: every way this can go wrong ends in one clear line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from semanticspec.engines.base import LAST_LAYER, StateSpec
from semanticspec.engines.llama_cpp.context import LlamaContext
from semanticspec.engines.llama_cpp.library import LOG, bindings
from semanticspec.engines.llama_cpp.options import DEFAULT_CONTEXT_TOKENS, LlamaOptions, LlamaSettings
from semanticspec.engines.runtime.worker import threads_for
from semanticspec.errors import ConfigError, ModelError
from semanticspec.text.gguf_files import gguf_digest

_ALL_LAYERS = 999


def load_context(model: str, options: LlamaOptions, states: StateSpec) -> tuple[LlamaContext, str]:
    """Loads a GGUF file and makes room for its keys and values.

    Returns:
        The model, ready to run, and a digest of the file.

    Raises:
        ConfigError: options do not fit the model or this build of llama.cpp, or another layer's states are wanted.
        ModelError: there is no such file, or llama.cpp cannot run it.
        EngineError: llama-cpp-python is missing, or there is not enough memory for keys and values.
    """
    if states.layer != LAST_LAYER:
        raise ConfigError(
            f"layer is {states.layer}, but llama.cpp gives the last layer's states after the final norm only "
            "(layer -1); use the engine transformers, or a probe of the last layer"
        )
    digest = gguf_digest(model)
    llama = bindings()
    on_gpu = llama.llama_supports_gpu_offload() and options.device != "cpu"
    if (options.device not in ("auto", "cpu") or options.gpu_layers) and not on_gpu:
        raise ConfigError(
            f"device is {options.device!r} with {options.gpu_layers or 'all'} GPU layers, but this llama.cpp was "
            "built for CPUs, or the device says cpu; install llama-cpp-python with GPU support, or use device cpu"
        )
    parameters = llama.llama_model_default_params()
    parameters.n_gpu_layers = (_ALL_LAYERS if options.gpu_layers is None else options.gpu_layers) * on_gpu
    LOG.clear()
    handle = llama.llama_model_load_from_file(os.fsencode(Path(model).expanduser()), parameters)
    if not handle:
        raise ModelError(f"llama.cpp cannot load {model}: {LOG.last()}")
    try:
        _check_kind(llama, handle, model)
        return LlamaContext(handle, _settings(llama, handle, options, on_gpu)), digest
    except BaseException:
        llama.llama_model_free(handle)
        raise


def _check_kind(llama: Any, handle: Any, model: str) -> None:
    """Refuses what cannot go on from a cut-back cache, or does not write from left to right."""
    if llama.llama_model_is_recurrent(handle) or llama.llama_model_is_hybrid(handle):
        raise ModelError(
            f"{model} keeps a recurrent state, which cannot be cut back to an earlier token; "
            "use the engine transformers for it"
        )
    if llama.llama_model_has_encoder(handle) or llama.llama_model_is_diffusion(handle):
        raise ModelError(
            f"{model} is no causal language model; expected one that writes text from left to right"
        )


def _settings(llama: Any, handle: Any, options: LlamaOptions, on_gpu: bool) -> LlamaSettings:
    trained = llama.llama_model_n_ctx_train(handle)
    context_tokens = options.context_tokens or min(trained, DEFAULT_CONTEXT_TOKENS)
    if context_tokens > trained:
        raise ConfigError(
            f"context_tokens is {context_tokens}, but the model was trained for {trained}; ask for no more"
        )
    cache_tokens = options.cache_tokens or 2 * context_tokens
    if cache_tokens < context_tokens:
        raise ConfigError(
            f"cache_tokens is {cache_tokens}, but one call may take {context_tokens}; expected at least as many"
        )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return LlamaSettings(
        exact=options.dtype == "float32",
        on_gpu=on_gpu,
        threads=threads_for(llama.llama_model_n_params(handle), options.threads, cores),
        context_tokens=context_tokens,
        cache_tokens=cache_tokens,
    )
