"""A second, quantized copy of the weights for decoding on CPUs, in int8 or int4. Figures: docs/experiments.md.

Decoding a few rows is bound by the bytes of the weights, so small weights are faster. Prefill and large batches are
bound by computation, for which torch's kernels for quantized weights are slower than those for bfloat16: they use the
packed bfloat16 weights (`packed_weights`). The two differ by rounding, so a quantized model should be a draft.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from semanticspec.errors import ConfigError, first_line

FORMS = ("int8", "int4")
MAX_ROWS = 4
"""More rows run in bfloat16. With 8 rows, both kernels are slower than the packed bfloat16 weights."""

_GROUP = 32
_MAX_ERROR = {"int8": 0.05, "int4": 0.25}
"""Of the self-test: distance from the layer's own output, relative to its norm."""


class QuantizedLinear(nn.Module):
    """Inference-only replacement of `nn.Linear`: weights of 8 or 4 bits for few rows, bfloat16 for more.

    Attributes:
        max_rows: more rows run in bfloat16; 0 = all, until `use_quantized_weights` is called.
    """

    quantized: Tensor
    scales: Tensor

    def __init__(self, linear: nn.Linear, packed: nn.Module, form: str) -> None:
        super().__init__()
        self.packed = packed
        self._form = form
        weight = linear.weight.detach().float()
        quantized, scales = _to_int8(weight) if form == "int8" else _to_int4(weight)
        self.register_buffer("quantized", quantized, persistent=False)
        self.register_buffer("scales", scales, persistent=False)
        self.bias = linear.bias
        self.max_rows = 0

    def forward(self, states: Tensor) -> Tensor:
        """Returns `[..., out]` of states `[..., in]`, bfloat16."""
        rows = states.reshape(-1, states.shape[-1])
        if len(rows) > self.max_rows:
            return self.packed(states)  # type: ignore[no-any-return]
        if self._form == "int8":
            result = torch._weight_int8pack_mm(rows, self.quantized, self.scales)
        else:
            result = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.quantized, _GROUP, self.scales)
        if self.bias is not None:
            result = result + self.bias
        return result.view(*states.shape[:-1], -1)


def quantize_weights(model: Any, form: str) -> None:
    """Gives each linear layer of a model a quantized copy of its weights, which is not used yet.

    Call it before `pack_weights`, which drops the plain weights.

    Raises:
        ConfigError: The form is unknown, the model is not bfloat16 on a CPU, or this build of torch lacks the kernels.
    """
    if form not in FORMS:
        raise ConfigError(f"weights is {form!r}; expected {' or '.join(FORMS)}, or leave it out")
    if model.device.type != "cpu" or model.dtype != torch.bfloat16:
        dtype = str(model.dtype).removeprefix("torch.")
        raise ConfigError(
            f"weights is {form!r}, which needs bfloat16 on a CPU, and the model is {dtype} on {model.device}; use "
            "dtype bfloat16, or omit weights"
        )
    places = [
        (module, name, child)
        for module in model.modules()
        for name, child in module.named_children()
        if type(child) is nn.Linear and child.in_features % _GROUP == 0 and child.out_features % _GROUP == 0
    ]
    with torch.inference_mode():
        for number, (module, name, linear) in enumerate(places):
            try:
                quantized = QuantizedLinear(linear, linear, form)
                if number == 0:
                    _check(quantized, linear)
            except (AttributeError, RuntimeError) as error:
                raise ConfigError(
                    f"weights is {form!r}, which this build of torch cannot run ({first_line(error)}); omit weights"
                ) from error
            setattr(module, name, quantized)  # `pack_weights` replaces the layer in it


def use_quantized_weights(model: Any) -> None:
    """Makes the layers use their quantized copies.

    Until then the model runs in bfloat16, so that the engine's self-tests compare like with like.
    """
    for module in model.modules():
        if isinstance(module, QuantizedLinear):
            module.max_rows = MAX_ROWS


def _check(quantized: QuantizedLinear, linear: nn.Linear) -> None:
    """Raises RuntimeError if the kernel does not compute what the layer does."""
    quantized.max_rows = MAX_ROWS
    states = torch.linspace(-1, 1, 2 * linear.in_features, dtype=linear.weight.dtype).view(2, -1)
    expected = linear(states).float()
    error = float((quantized(states).float() - expected).norm() / expected.norm())
    if not error <= _MAX_ERROR[quantized._form]:
        raise RuntimeError(f"relative error {error:.2g}")
    quantized.max_rows = 0


def _to_int8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Returns weights `[out, in]` and scales `[out]`."""
    scales = weight.abs().amax(1).clamp(min=1e-8) / 127
    return (weight / scales[:, None]).round().to(torch.int8), scales.to(torch.bfloat16)


def _to_int4(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Returns packed weights, and scales and offsets `[in / group, out, 2]`: weight = (code - 8) * scale + offset."""
    groups = weight.view(len(weight), -1, _GROUP)
    low, high = groups.amin(-1), groups.amax(-1)
    scales = ((high - low) / 15).clamp(min=1e-8).to(torch.bfloat16)
    codes = ((groups - low[..., None]) / scales.float()[..., None]).round().clamp(0, 15)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes.view_as(weight).to(torch.int32), 1)
    offsets = (low + 8 * scales.float()).to(torch.bfloat16)
    return packed, torch.stack((scales, offsets), dim=-1).transpose(0, 1).contiguous()
