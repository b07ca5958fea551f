"""The probe's network: a perceptron from one pass's pooled state to the logit of a semantic probability."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

DROPOUT = 0.3
"""After the first two hidden layers. Source: the paper's probes."""

_LARGEST_INPUT = 10.0


class ProbeNetwork(nn.Module):
    """Standardises its input, then H -> widths -> 1 with ReLU between; dropout after the first two layers.

    Source: the paper's probes (2048, 512, 256 for the target; 1024, 512, 256 for the draft). Deviations: the
    scaler is part of the network, features may stand beside the state, and the output is a logit.

    Attributes:
        mean, scale: of the training inputs, buffers `[inputs]`, float32.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, num_inputs: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_inputs))
        self.register_buffer("scale", torch.ones(num_inputs))
        layers: list[nn.Module] = []
        sizes = [num_inputs, *widths]
        for index, (before, after) in enumerate(pairwise(sizes)):
            layers += [nn.Linear(before, after), nn.ReLU()]
            if index < 2:
                layers.append(nn.Dropout(DROPOUT))
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))

    @property
    def num_inputs(self) -> int:
        return int(self.mean.shape[0])

    def fit_scaler(self, inputs: Tensor) -> None:
        """Sets mean and scale to those of `inputs`, `[rows, inputs]`; a constant input gets scale 1."""
        deviation = inputs.std(dim=0, correction=0)
        self.mean.copy_(inputs.mean(dim=0))
        self.scale.copy_(torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation)))

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits `[...]` of inputs `[..., inputs]`, float32.

        Standardised inputs are clamped to +-10, so that one value unlike any in training cannot decide alone.
        """
        scaled = ((inputs - self.mean) / self.scale).clamp(-_LARGEST_INPUT, _LARGEST_INPUT)
        logits: Tensor = self.layers(scaled)
        return logits.squeeze(-1)
