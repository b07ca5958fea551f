"""A model's final norm, apart from the model: what vLLM's pooled states lack to be those that other engines give.

An RMSNorm scales each state by its own length (done in `vllm_connector`, before the mean is taken) and then every value
by a weight. The second is linear, so it can be done after the mean.
"""

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

from semanticspec.engines.transformers.loading import Found
from semanticspec.errors import ModelError

_NAMES = ("norm", "final_layernorm", "ln_f")


@dataclass(frozen=True, slots=True)
class FinalNorm:
    """`weight * x / sqrt(mean(x ** 2) + epsilon)`.

    Attributes:
        weight: `[hidden]`, float32.
    """

    weight: Tensor
    epsilon: float


def read_final_norm(found: Found) -> FinalNorm:
    """Reads the final norm of a model, and nothing else of its weights.

    Raises:
        ModelError: it has another kind of norm, or its weights are no safetensors files.
    """
    model = found.name
    with torch.device("meta"):
        whole = AutoModelForCausalLM.from_config(found.config)
    base_name = whole.base_model_prefix
    base = getattr(whole, base_name)
    name = next((name for name in _NAMES if isinstance(getattr(base, name, None), nn.Module)), None)
    if name is None:
        raise ModelError(
            f"{model} has no final norm that is known here; the engine vllm cannot give its states"
        )
    norm = getattr(base, name)
    epsilon = getattr(norm, "variance_epsilon", getattr(norm, "eps", None))
    if epsilon is None or not _is_rms_norm(norm, float(epsilon)):
        raise ModelError(
            f"the final norm of {model} is a {type(norm).__name__}; the engine vllm gives the states of models with "
            "a plain RMSNorm only, use --engine transformers"
        )
    return FinalNorm(_read_weight(model, f"{base_name}.{name}.weight"), float(epsilon))


def _is_rms_norm(norm: Any, epsilon: float) -> bool:
    """Whether it computes what `FinalNorm` says; some add one to their weights, others take the mean away."""
    norm = norm.to_empty(device="cpu").float()
    parameters: list[Tensor] = list(norm.parameters())
    if len(parameters) != 1 or parameters[0] is not getattr(norm, "weight", None):
        return False
    numbers = torch.Generator().manual_seed(0)
    weight, x = (torch.randn(len(parameters[0]), generator=numbers) for _ in range(2))
    with torch.no_grad():
        norm.weight.copy_(weight)
        expected = weight * x * torch.rsqrt(x.square().mean() + epsilon)
        return bool(torch.allclose(norm(x[None])[0], expected, atol=1e-4))


def _read_weight(model: str, name: str) -> Tensor:
    """One tensor out of a model's files, as float32."""
    path = _file_of(model, name)
    try:
        with safe_open(path, framework="pt") as file:
            weight: Tensor = file.get_tensor(name)
            return weight.float()
    except Exception as error:  # safetensors has one kind of error for everything
        raise ModelError(f"{model} has no tensor {name!r} that can be read from {path}") from error


def _file_of(model: str, name: str) -> Path:
    options: dict[str, Any] = {"_raise_exceptions_for_missing_entries": False}
    index = cached_file(model, SAFE_WEIGHTS_INDEX_NAME, **options)
    file = SAFE_WEIGHTS_NAME
    if index is not None:
        file = json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].get(name, file)
    found = cached_file(model, file, **options)
    if found is None:
        raise ModelError(f"{model} has no safetensors files; the engine vllm reads its final norm from them")
    return Path(found)
