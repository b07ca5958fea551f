"""How a GGUF file is run with llama.cpp."""

from __future__ import annotations

from dataclasses import dataclass

from semanticspec.errors import ConfigError

DEFAULT_CONTEXT_TOKENS = 8192
"""Longest context unless asked otherwise: room for keys and values is taken at once, not as it is needed."""


_DTYPES = ("auto", "float32", "float16")


@dataclass(frozen=True, slots=True)
class LlamaOptions:
    """How a GGUF file is run.

    Attributes:
        dtype: of kept keys and values: float16 (auto), or float32, which also leaves out flash attention, since that
            works in float16 on CPUs. The weights stay as the file holds them.
        device: auto (a GPU where llama.cpp was built for one), cpu, or cuda or mps for the GPU.
        threads: CPU threads; None = one for small models, all cores this process may use for others.
        gpu_layers: how many layers run on the GPU; None = all of them, none with device cpu.
        context_tokens: longest prompt and output together; None = the model's own limit, at most
            `DEFAULT_CONTEXT_TOKENS`.
        cache_tokens: for how many tokens keys and values have room, of all calls under way and those kept of earlier
            ones; None = twice `context_tokens`.
    """

    dtype: str = "auto"
    device: str = "auto"
    threads: int | None = None
    gpu_layers: int | None = None
    context_tokens: int | None = None
    cache_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise ConfigError(
                f"dtype is {self.dtype!r}; llama.cpp runs a file's weights as they are, and this is the type of its "
                f"kept keys and values: {', '.join(_DTYPES)}"
            )
        if self.device not in ("auto", "cpu", "cuda", "mps"):
            raise ConfigError(f"device is {self.device!r}; expected auto, cpu, cuda or mps with llama.cpp")
        for name, least in (("threads", 1), ("gpu_layers", 0), ("context_tokens", 2), ("cache_tokens", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} is {value}; expected {least} or more")


@dataclass(frozen=True, slots=True)
class LlamaSettings:
    """The options with everything decided for one model; `exact` is dtype float32."""

    exact: bool
    on_gpu: bool
    threads: int
    context_tokens: int
    cache_tokens: int
