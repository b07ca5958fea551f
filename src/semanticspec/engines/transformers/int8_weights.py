"""Int8 weights for drafts on CPUs: half the memory of bfloat16, and faster to decode with. Figures: docs/experiments.md.

Weights are rounded once, with a scale per output feature; activations in every pass, with a scale per call. The kernels
are torch's own (`torch.ops.quantized`), which compute in int8.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from semanticspec.engines.transformers.mapped_files import MappedFiles
from semanticspec.errors import ConfigError, first_line

_MAX_INT8 = 127


class Int8Linear(nn.Module):
    """Inference-only replacement of `nn.Linear`."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scales = weight.abs().amax(1).clamp(min=1e-8) / _MAX_INT8
        zeros = torch.zeros(len(scales), dtype=torch.long)
        rounded = torch.quantize_per_channel(weight, scales.double(), zeros, 0, torch.qint8)
        bias = None if linear.bias is None else linear.bias.detach().float()
        self._packed = torch.ops.quantized.linear_prepack(rounded, bias)
        # Without VNNI, sums of two products of 8 bits overflow.
        self._reduce_range = not torch.cpu._is_vnni_supported()

    def forward(self, states: Tensor) -> Tensor:
        result: Tensor = torch.ops.quantized.linear_dynamic(states.float(), self._packed, self._reduce_range)
        return result.to(states.dtype)


def use_int8_weights(model: Any) -> int:
    """Replaces a model's linear layers on the CPU, one by one, so that both forms are never resident together.

    Returns:
        The number of replaced layers.

    Raises:
        ConfigError: The model is not on a CPU, or this build of torch has no such kernels.
    """
    if model.device.type != "cpu":
        raise ConfigError(
            f"weights is 'int8', which runs on CPUs only, and the device is {model.device}; omit weights"
        )
    places = [
        (module, name, child)
        for module in model.modules()
        for name, child in module.named_children()
        if type(child) is nn.Linear
    ]
    tied = model.get_input_embeddings().weight.data_ptr()
    files = MappedFiles()
    with torch.inference_mode():
        for module, name, linear in places:
            try:
                setattr(module, name, Int8Linear(linear))
            except (AttributeError, RuntimeError) as error:
                raise ConfigError(
                    f"weights is 'int8', which this build of torch cannot run ({first_line(error)}); omit weights"
                ) from error
            if linear.weight.data_ptr() != tied:
                files.drop_pages(linear.weight)
                del linear.weight
    return len(places)
