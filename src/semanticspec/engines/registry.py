"""Engines by name. An engine is chosen as `transformers`, `llama-cpp:threads=4,gpu_layers=20`, or
`vllm:tensor_parallel_size=4,gpu_memory_utilization=0.6`.

To add an engine, add an entry to `ENGINES`. Engines are imported only when they load a model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from typing import Any

from semanticspec.engines.base import Engine, LoadRequest, StateSpec
from semanticspec.errors import ConfigError


@dataclass(frozen=True, slots=True)
class EngineKind:
    """An entry of the registry.

    Attributes:
        load: imports the engine and loads a model.
        aliases: other spellings of the name.
        options: names of the engine's options; None = any options of any type.
        texts: options whose values are texts; all others are integers.
        suffix: of the model files it runs; "" if it accepts other model names.
        share_devices: adjusts the load requests of two models that run at the same time; None = no adjustment.
    """

    load: Callable[[LoadRequest], Engine]
    aliases: tuple[str, ...] = ()
    options: tuple[str, ...] | None = ()
    texts: tuple[str, ...] = ()
    suffix: str = ""
    share_devices: Callable[[LoadRequest, LoadRequest], tuple[LoadRequest, LoadRequest]] | None = None


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
    check_version()  # before the next import, which needs vLLM
    from semanticspec.engines.vllm.engine import VllmEngine

    return VllmEngine.load(request.model, options=options, states=request.states)


def _share_vllm_memory(first: LoadRequest, second: LoadRequest) -> tuple[LoadRequest, LoadRequest]:
    from semanticspec.engines.vllm.memory import share_memory
    from semanticspec.engines.vllm.options import check_version

    check_version()
    return share_memory(first, second)


TRANSFORMERS, LLAMA_CPP = "transformers", "llama-cpp"
DEFAULT_ENGINE = "auto"
"""llama.cpp for a GGUF file where it is installed, and transformers for everything else."""

ENGINES: dict[str, EngineKind] = {
    TRANSFORMERS: EngineKind(
        _load_transformers,
        ("hf", "huggingface"),
        ("threads", "cache_bytes", "head_tokens", "weights", "adapter"),
        texts=("head_tokens", "weights", "adapter"),
    ),
    LLAMA_CPP: EngineKind(
        _load_llama_cpp,
        ("llama.cpp", "llama_cpp", "llamacpp"),
        ("threads", "gpu_layers", "context_tokens", "cache_tokens", "head_tokens"),
        texts=("head_tokens",),
        suffix=".gguf",
    ),
    "vllm": EngineKind(_load_vllm, options=None, share_devices=_share_vllm_memory),
}
ENGINE_HELP = (
    f"{DEFAULT_ENGINE} ({LLAMA_CPP} for a GGUF file if it is installed, else {TRANSFORMERS}), {', '.join(ENGINES)}; "
    "optionally with engine options: llama-cpp:threads=4,gpu_layers=20 or "
    "vllm:tensor_parallel_size=2 (any of vLLM's engine arguments)."
)
"""Help text of the option --engine."""


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """An engine's name in the registry, or `auto`, and its options."""

    name: str = DEFAULT_ENGINE
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> EngineChoice:
        """Parses a name or alias, with options if any: `llama-cpp:threads=4,gpu_layers=20`.

        Raises:
            ConfigError: The engine or an option is unknown.
        """
        given, _, listed = text.partition(":")
        if given.lower() == DEFAULT_ENGINE:
            if listed:
                raise ConfigError(f"the engine {text!r} has options; name the engine that they are for")
            return cls()
        name = _canonical_name(given)
        options: dict[str, Any] = {}
        for part in filter(None, listed.split(",")):
            key, _, value = part.partition("=")
            options[key] = _parse_option(name, key, value)
        return cls(name, options)

    def for_model(self, model: str) -> EngineChoice:
        """Returns the engine that runs a model; replaces `auto`."""
        if self.name != DEFAULT_ENGINE:
            return self
        with_llama_cpp = model.endswith(".gguf") and find_spec("llama_cpp") is not None
        return replace(self, name=LLAMA_CPP if with_llama_cpp else TRANSFORMERS)

    def with_option(self, name: str, value: object) -> str:
        """Returns the engine as a text, as `parse` takes it, with one more option."""
        options = {**self.options, name: value}
        return f"{self.name}:{','.join(f'{key}={each}' for key, each in options.items())}"

    def request(self, model: str, dtype: str, device: str, states: StateSpec) -> LoadRequest:
        """Returns the request to load a model with this engine, which must not be `auto`."""
        return LoadRequest(self.name, model, dtype, device, states, self.options)


def load_engine(request: LoadRequest) -> Engine:
    """Loads a model. Raises what the engine raises."""
    return ENGINES[request.engine].load(request)


def share_devices(first: LoadRequest, second: LoadRequest) -> tuple[LoadRequest, LoadRequest]:
    """Adjusts the requests for two models that run at the same time. Raises what their engine raises."""
    adjust = ENGINES[first.engine].share_devices
    if adjust is None or first.engine != second.engine:
        return first, second
    return adjust(first, second)


def _canonical_name(given: str) -> str:
    for name, kind in ENGINES.items():
        if given.lower() in (name, *kind.aliases):
            return name
    raise ConfigError(f"there is no engine {given!r}; choose from {', '.join([DEFAULT_ENGINE, *ENGINES])}")


def _parse_option(engine: str, key: str, value: str) -> Any:
    known = ENGINES[engine].options
    if known is None:
        try:
            return json.loads(value)
        except ValueError:
            return value
    if key not in known:
        raise ConfigError(f"the engine {engine} has no option {key!r}; choose from {', '.join(known)}")
    if key in ENGINES[engine].texts and value:
        return value
    try:
        return int(value)
    except ValueError:
        expected = "a text" if key in ENGINES[engine].texts else "a whole number"
        raise ConfigError(f"{key} of the engine {engine} is {value!r}; expected {expected}") from None
