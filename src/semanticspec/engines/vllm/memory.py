"""Divides the memory of shared devices between two models.

By default, vLLM takes 90 % of a device for one model, so that a second one would run out of memory.
"""

from __future__ import annotations

from dataclasses import replace

from semanticspec.engines.base import LoadRequest
from semanticspec.errors import ConfigError

SHARE = "gpu_memory_utilization"
"""vLLM's engine argument, also on CPUs."""

_TOTAL = 0.9
_MIN_DEFAULT = 0.1  # leaves a very small model room for its KV cache
_MIN_USABLE = 0.02


def share_memory(first: LoadRequest, second: LoadRequest) -> tuple[LoadRequest, LoadRequest]:
    """Adds memory shares to two load requests, in proportion to the models' weights.

    If one share is given, the other model gets the rest of 90 %. Nothing changes for models on different devices, and
    for models with a fixed cache size (`kv_cache_memory_bytes`).

    Raises:
        ConfigError: The given shares do not fit.
        ModelError: A model cannot be found.
    """
    has_size = any("kv_cache_memory_bytes" in request.options for request in (first, second))
    if has_size or not _devices(first) & _devices(second):
        return first, second
    shares = _shares(first, second)
    if min(shares) < _MIN_USABLE or sum(shares) > 1:
        raise ConfigError(
            f"{SHARE} is {shares[0]:g} and {shares[1]:g} for two models on the same device; "
            "use shares that add up to less than 1, or a device for each model"
        )
    return _with_share(first, shares[0]), _with_share(second, shares[1])


def _with_share(request: LoadRequest, share: float) -> LoadRequest:
    return replace(request, options={**request.options, SHARE: round(share, 3)})


def _shares(first: LoadRequest, second: LoadRequest) -> tuple[float, float]:
    given, other = (request.options.get(SHARE) for request in (first, second))
    if given is not None:
        return given, _TOTAL - given if other is None else other
    if other is not None:
        return _TOTAL - other, other
    sizes = _weights(first), _weights(second)
    small = max(_MIN_DEFAULT, _TOTAL * min(sizes) / sum(sizes))
    return (_TOTAL - small, small) if sizes[0] >= sizes[1] else (small, _TOTAL - small)


def _devices(request: LoadRequest) -> set[int]:
    """Returns the indices of a model's devices."""
    _, _, index = request.device.partition(":")
    return {int(index)} if index.isdigit() else set(range(_num_devices(request)))


def _num_devices(request: LoadRequest) -> int:
    sizes = (request.options.get(name, 1) for name in ("tensor_parallel_size", "pipeline_parallel_size"))
    first, second = (size if isinstance(size, int) else 1 for size in sizes)
    return first * second


def _weights(request: LoadRequest) -> float:
    """Returns the number of parameters per device."""
    import torch
    from transformers import AutoModelForCausalLM

    from semanticspec.engines.transformers.loading import find_model
    from semanticspec.output.quiet import quiet

    with quiet(), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(find_model(request.model).config)
    return float(model.num_parameters()) / _num_devices(request)
