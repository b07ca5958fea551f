"""Packs bfloat16 weights for oneDNN on CPUs, once instead of in every forward pass.

Torch does this only inside `torch.compile`, with the two private operators used here. Where they are missing or give
different numbers, the model is left unchanged. Speedup: see docs/experiments.md.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

from semanticspec.engines.transformers.mapped_files import MappedFiles

logger = logging.getLogger(__name__)

# The batch size to pack for. The result works for any; 16 was as fast as others for one row and for hundreds.
_ROWS = 16


class PackedLinear(nn.Module):
    """Inference-only replacement of `nn.Linear`. Its weight has oneDNN's opaque layout."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), _ROWS)
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.bias = linear.bias

    def forward(self, states: Tensor) -> Tensor:
        result: Tensor = torch.ops.mkldnn._linear_pointwise(states, self.weight, self.bias, "none", [], "")
        return result


def pack_weights(model: Any) -> int:
    """Replaces a model's bfloat16 linear layers on the CPU; all others stay.

    A head that is tied to the input embedding becomes a separate copy, which needs that much more memory. The memory of
    other weights is freed layer by layer, so that the original and the packed weights are never in memory together.

    Returns:
        The number of replaced layers.
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
        if not places or not _gives_same_numbers(places[0][2]):
            return 0
        uses = Counter(p.data_ptr() for _, p in model.named_parameters(remove_duplicate=False))
        files = MappedFiles()
        for module, name, linear in places:
            setattr(module, name, PackedLinear(linear))
            if uses[linear.weight.data_ptr()] == 1:  # not tied
                files.drop_pages(linear.weight)
                del linear.weight
    return len(places)


def _gives_same_numbers(linear: nn.Linear) -> bool:
    """Returns whether this build of torch has the operators, and they compute what `linear` does."""
    states = torch.linspace(-1, 1, 3 * linear.in_features, dtype=linear.weight.dtype).view(3, -1)
    try:
        torch.testing.assert_close(PackedLinear(linear)(states), linear(states))
    except (AttributeError, RuntimeError, AssertionError) as error:
        logger.debug("weights are not packed: %s", error)
        return False
    return True
