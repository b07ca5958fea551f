"""On a CPU, weights in bfloat16 laid out once for the matrix library, which otherwise does it anew in every pass.

Torch itself does this inside `torch.compile` only, through the two private operators used here; where they are missing
or give other numbers, the model stays as it is. What it brings: docs/experiments.md.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

# Rows the layout is made for. It serves any number of them; 16 was as fast as others for one row and for hundreds.
_ROWS = 16


class PackedLinear(nn.Module):
    """What a `nn.Linear` does, for inference only. Its weight is in the matrix library's own order: not to be read."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _ROWS)
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.bias = linear.bias

    def forward(self, states: Tensor) -> Tensor:
        result: Tensor = torch.ops.mkldnn._linear_pointwise(states, self.weight, self.bias, "none", [], "")
        return result


def pack_weights(model: Any) -> int:
    """Replaces the model's linear layers in bfloat16 on a CPU; others, and other models, stay as they are.

    A head tied to the input embedding becomes a copy of its own, which takes that much more memory.

    Returns:
        How many layers were replaced.
    """
    places = [
        (module, name, child)
        for module in model.modules()
        for name, child in module.named_children()
        if type(child) is nn.Linear
        and child.weight.dtype == torch.bfloat16
        and child.weight.device.type == "cpu"
    ]
    with torch.inference_mode():
        if not places or not _same_numbers(places[0][2]):
            return 0
        for module, name, linear in places:
            setattr(module, name, PackedLinear(linear))
    return len(places)


def _same_numbers(linear: nn.Linear) -> bool:
    """Whether this build of torch has the operators, and they compute what `linear` does."""
    states = torch.linspace(-1, 1, 3 * linear.in_features, dtype=linear.weight.dtype).view(3, -1)
    try:
        torch.testing.assert_close(PackedLinear(linear)(states), linear(states))
    except (AttributeError, RuntimeError, AssertionError) as error:
        logger.debug("weights are not packed: %s", error)
        return False
    return True
