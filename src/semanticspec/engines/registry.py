"""The engines by name, and how one is chosen for a model: `transformers`, or `llama-cpp:threads=4,gpu_layers=20`, or
`vllm:tensor_parallel_size=4,gpu_memory_utilization=0.6`.

Light: engines are imported when a model is loaded. Another engine is another entry of `ENGINES`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from semanticspec.engines.base import Engine, LoadRequest, StateSpec
from semanticspec.errors import ConfigError


@dataclass(frozen=True, slots=True)
class EngineKind:
    """An engine that can be chosen.

    Attributes:
        load: imports it and loads a model.
        options: names of its own options, all whole numbers; None = whatever the engine takes, of any kind.
        suffix: of the files it runs; "" if it finds models by other names too.
        beside: what two models that it runs at the same time are loaded with, where one bears on the other.
    """

    load: Callable[[LoadRequest], Engine]
    options: tuple[str, ...] | None = ()
    suffix: str = ""
    beside: Callable[[LoadRequest, LoadRequest], tuple[LoadRequest, LoadRequest]] | None = None


def _load_transformers(request: LoadRequest) -> Engine:
    from semanticspec.engines.transformers.engine import TransformersEngine

    return TransformersEngine.load(
        request.model,
        dtype=request.dtype,
        device=request.device,
        states=request.states,
        **request.options,
    )


def _load_llama_cpp(request: LoadRequest) -> Engine:
    from semanticspec.engines.llama_cpp.engine import LlamaCppEngine
    from semanticspec.engines.llama_cpp.options import LlamaOptions

    options = LlamaOptions(dtype=request.dtype, device=request.device, **request.options)
    return LlamaCppEngine.load(request.model, options=options, states=request.states)


def _load_vllm(request: LoadRequest) -> Engine:
    from semanticspec.engines.vllm.options import VllmOptions, check_version

    options = VllmOptions(dtype=request.dtype, device=request.device, arguments=request.options)
    check_version()
    from semanticspec.engines.vllm.engine import VllmEngine

    return VllmEngine.load(request.model, options=options, states=request.states)


def _share_vllm(first: LoadRequest, second: LoadRequest) -> tuple[LoadRequest, LoadRequest]:
    from semanticspec.engines.vllm.options import check_version

    check_version()
    from semanticspec.engines.vllm.memory import share_memory

    return share_memory(first, second)


DEFAULT_ENGINE = "transformers"
ENGINES: dict[str, EngineKind] = {
    DEFAULT_ENGINE: EngineKind(_load_transformers, ("threads", "cache_bytes")),
    "llama-cpp": EngineKind(
        _load_llama_cpp, ("threads", "gpu_layers", "context_tokens", "cache_tokens"), ".gguf"
    ),
    "vllm": EngineKind(_load_vllm, None, beside=_share_vllm),
}
ENGINE_HELP = (
    f"{', '.join(ENGINES)}; with options of its own if need be: llama-cpp:threads=4,gpu_layers=20 or "
    "vllm:tensor_parallel_size=2 (any of vLLM's engine arguments)."
)
"""Of the option --engine."""


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """An engine with options of its own."""

    name: str = DEFAULT_ENGINE
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> EngineChoice:
        """Reads a name, or a name and options: `llama-cpp:threads=4,gpu_layers=20`.

        Raises:
            ConfigError: there is no such engine, or it has no such option.
        """
        name, _, listed = text.partition(":")
        if name not in ENGINES:
            raise ConfigError(f"there is no engine {name!r}; choose from {', '.join(ENGINES)}")
        options: dict[str, Any] = {}
        for part in filter(None, listed.split(",")):
            key, _, value = part.partition("=")
            options[key] = _read_option(name, key, value)
        return cls(name, options)

    def request(self, model: str, dtype: str, device: str, states: StateSpec) -> LoadRequest:
        """To have this engine run a model."""
        return LoadRequest(self.name, model, dtype, device, states, self.options)


def load_engine(request: LoadRequest) -> Engine:
    """Loads a model. Raises what the engine raises."""
    return ENGINES[request.engine].load(request)


def side_by_side(first: LoadRequest, second: LoadRequest) -> tuple[LoadRequest, LoadRequest]:
    """The requests for two models that will run at the same time. Raises what their engine raises."""
    adjusted = ENGINES[first.engine].beside
    if adjusted is None or first.engine != second.engine:
        return first, second
    return adjusted(first, second)


def _read_option(engine: str, key: str, value: str) -> Any:
    known = ENGINES[engine].options
    if known is None:
        try:
            return json.loads(value)
        except ValueError:
            return value
    if key not in known:
        raise ConfigError(f"the engine {engine} has no option {key!r}; choose from {', '.join(known)}")
    try:
        return int(value)
    except ValueError:
        raise ConfigError(f"{key} of the engine {engine} is {value!r}; expected a whole number") from None
