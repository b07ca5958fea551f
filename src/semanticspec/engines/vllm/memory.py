"""Two models of vLLM on the same devices: how much of the memory each may take.

vLLM takes nine tenths of a device for one model, weights and cache, so that a second one would fail for want of memory.
"""

from __future__ import annotations

from dataclasses import replace

from semanticspec.engines.base import LoadRequest
from semanticspec.errors import ConfigError

SHARE = "gpu_memory_utilization"
"""vLLM's name for it, on CPUs too."""

_BOTH = 0.9
# Room for the cache of a model that is tiny beside the other; and what no model can do with less of.
_SMALLEST, _TOO_SMALL = 0.1, 0.02


def share_memory(first: LoadRequest, second: LoadRequest) -> tuple[LoadRequest, LoadRequest]:
    """Adds shares of the memory, in proportion to the models' weights where none are given.

    A share that is given for one of them leaves the rest of nine tenths to the other. Models that meet on no device
    stay as they are, and so do those whose cache has a size of its own (`kv_cache_memory_bytes`).

    Raises:
        ConfigError: the shares that are given do not fit beside each other.
        ModelError: a model cannot be found.
    """
    has_size = any("kv_cache_memory_bytes" in request.options for request in (first, second))
    if has_size or not _devices(first) & _devices(second):
        return first, second
    shares = _shares(first, second)
    if min(shares) < _TOO_SMALL or sum(shares) > 1:
        raise ConfigError(
            f"target and draft are on the same device, and {SHARE} of {shares[0]:g} and {shares[1]:g} do not fit "
            "beside each other; give shares that add up to less than 1, or a device each"
        )
    return _with_share(first, shares[0]), _with_share(second, shares[1])


def _with_share(request: LoadRequest, share: float) -> LoadRequest:
    return replace(request, options={**request.options, SHARE: round(share, 3)})


def _shares(first: LoadRequest, second: LoadRequest) -> tuple[float, float]:
    given, other = (request.options.get(SHARE) for request in (first, second))
    if given is not None and other is not None:
        return given, other
    if given is not None:
        return given, _BOTH - given
    if other is not None:
        return _BOTH - other, other
    sizes = _weights(first), _weights(second)
    small = max(_SMALLEST, _BOTH * min(sizes) / sum(sizes))
    return (_BOTH - small, small) if sizes[0] >= sizes[1] else (small, _BOTH - small)


def _devices(request: LoadRequest) -> set[int]:
    """The devices of a model, by their numbers."""
    _, _, index = request.device.partition(":")
    return {int(index)} if index.isdigit() else set(range(_num_devices(request)))


def _num_devices(request: LoadRequest) -> int:
    sizes = (request.options.get(name, 1) for name in ("tensor_parallel_size", "pipeline_parallel_size"))
    first, second = (size if isinstance(size, int) else 1 for size in sizes)
    return first * second


def _weights(request: LoadRequest) -> float:
    """Parameters on each of a model's devices."""
    import torch
    from transformers import AutoModelForCausalLM

    from semanticspec.engines.transformers.loading import find_model
    from semanticspec.output.quiet import quiet

    with quiet(), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(find_model(request.model).config)
    return float(model.num_parameters()) / _num_devices(request)
