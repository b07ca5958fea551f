"""Options of the llama.cpp engine."""

from __future__ import annotations

from dataclasses import dataclass

from semanticspec.errors import ConfigError

DEFAULT_CONTEXT_TOKENS = 8192
"""Upper limit for the default context, since llama.cpp allocates its KV cache at start."""

_DTYPES = ("auto", "float32", "float16")
_DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True, slots=True)
class LlamaOptions:
    """How to run a GGUF file.

    Attributes:
        dtype: of the KV cache; weights stay as stored in the file. float16 (auto), or float32, which also disables
            flash attention, since that computes in float16 on CPUs.
        device: auto (a GPU if llama.cpp was built for one), cpu, or cuda or mps for the GPU.
        threads: CPU threads; None = 1 for small models, all available cores for others.
        gpu_layers: number of layers on the GPU; None = all, or none with device cpu.
        context_tokens: limit for prompt and output together; None = the model's own limit, at most
            `DEFAULT_CONTEXT_TOKENS`.
        cache_tokens: size of the KV cache for all running calls and the prefix cache; None = 2 x `context_tokens`.
        head_tokens: file with the ids of the tokens that the head keeps, see `runtime.head_tokens`; None = all.

    Raises:
        ConfigError: A value is out of range.
    """

    dtype: str = "auto"
    device: str = "auto"
    threads: int | None = None
    gpu_layers: int | None = None
    context_tokens: int | None = None
    cache_tokens: int | None = None
    head_tokens: str | None = None

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise ConfigError(
                f"dtype is {self.dtype!r}; expected {', '.join(_DTYPES)} for llama.cpp's KV cache (the weights stay "
                "as stored in the file); to set the dtype of one model, use --target-dtype or --draft-dtype"
            )
        if self.device not in _DEVICES:
            raise ConfigError(f"device is {self.device!r}; expected {', '.join(_DEVICES)} with llama.cpp")
        for name, minimum in (("threads", 1), ("gpu_layers", 0), ("context_tokens", 2), ("cache_tokens", 2)):
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise ConfigError(f"{name} is {value}; expected {minimum} or more")


@dataclass(frozen=True, slots=True)
class LlamaSettings:
    """`LlamaOptions` resolved for one model. `exact` means dtype float32."""

    exact: bool
    on_gpu: bool
    threads: int
    context_tokens: int
    cache_tokens: int
