"""Loads a model's final norm without the rest of the model, to complete the pooled states of `connector`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

from semanticspec.engines.transformers.loading import FoundModel
from semanticspec.errors import ModelError

_NAMES = ("norm", "final_layernorm", "ln_f")


@dataclass(frozen=True, slots=True)
class FinalNorm:
    """An RMSNorm: `weight * x / sqrt(mean(x ** 2) + epsilon)`, with `weight` `[hidden]`, float32."""

    weight: Tensor
    epsilon: float


def load_final_norm(found: FoundModel) -> FinalNorm:
    """Loads a model's final norm.

    Raises:
        ModelError: The norm is not a plain RMSNorm, or the weights are not in safetensors files.
    """
    model = found.name
    with torch.device("meta"):
        whole = AutoModelForCausalLM.from_config(found.config)
    base_name = whole.base_model_prefix
    base = getattr(whole, base_name)
    name = next((name for name in _NAMES if isinstance(getattr(base, name, None), nn.Module)), None)
    if name is None:
        raise ModelError(f"cannot find the final norm of {model}; use the engine transformers")
    norm = getattr(base, name)
    epsilon = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
    if epsilon is None or not _is_rms_norm(norm, float(epsilon)):
        raise ModelError(
            f"the final norm of {model} is a {type(norm).__name__}, but the engine vllm supports a plain RMSNorm only; "
            "use the engine transformers"
        )
    return FinalNorm(_load_tensor(model, f"{base_name}.{name}.weight"), float(epsilon))


def _is_rms_norm(norm: Any, epsilon: float) -> bool:
    """Tests numerically whether a module computes `FinalNorm`. Some add 1 to the weight, or subtract the mean."""
    norm = norm.to_empty(device="cpu").float()
    parameters: list[Tensor] = list(norm.parameters())
    if len(parameters) != 1 or parameters[0] is not getattr(norm, "weight", None):
        return False
    generator = torch.Generator().manual_seed(0)
    weight, x = (torch.randn(len(parameters[0]), generator=generator) for _ in range(2))
    with torch.no_grad():
        norm.weight.copy_(weight)
        expected = weight * x * torch.rsqrt(x.square().mean() + epsilon)
        return bool(torch.allclose(norm(x[None])[0], expected, atol=1e-4))


def _load_tensor(model: str, name: str) -> Tensor:
    """Loads one tensor of a model, as float32."""
    path = _find_file(model, name)
    try:
        with safe_open(path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
            return tensor.float()
    except Exception as error:
        raise ModelError(f"cannot read the tensor {name!r} of {model} from {path}") from error


def _find_file(model: str, tensor: str) -> Path:
    """Returns the safetensors file that holds a tensor."""
    options: dict[str, Any] = {"_raise_exceptions_for_missing_entries": False}
    index = cached_file(model, SAFE_WEIGHTS_INDEX_NAME, **options)
    file = SAFE_WEIGHTS_NAME
    if index is not None:
        file = json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].get(tensor, file)
    found = cached_file(model, file, **options)
    if found is None:
        raise ModelError(f"{model} has no safetensors files; convert it, or use the engine transformers")
    return Path(found)
