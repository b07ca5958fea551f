"""The probe's network: a multilayer perceptron from a pooled state and features to a logit."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from semanticspec.errors import ConfigError
from semanticspec.probes.states import Inputs, Ragged, RaggedInputs

DROPOUT = 0.3
"""After the first two hidden layers. Source: the paper's probes."""

_LARGEST_INPUT = 10.0


class ProbeNetwork(nn.Module):
    """Standardises its input, then inputs -> widths -> 1 with ReLU between; dropout after the first two layers.

    With `components`, a fixed linear layer first reduces the `num_state` state inputs to principal components. With
    `attention`, the network reads all states of a segment and pools them itself: the weights are the softmax of the
    products of the standardised states with one learnt query. The query starts at zero, which gives the mean.

    Source: the paper's probes (2048, 512, 256 for the target; 1024, 512, 256 for the draft). Deviations: the scaler
    is part of the network, features can be added to the state, and the output is a logit.

    Attributes:
        mean, scale: of the training inputs, buffers `[inputs]`, float32.
        projection: `[num_state] -> [components]`, None without components.
        query: `[num_state]`, None without attention.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        num_inputs: int,
        widths: Sequence[int],
        *,
        num_state: int = 0,
        components: int = 0,
        attention: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= components <= num_state <= num_inputs:
            raise ConfigError(
                f"components is {components}; expected at most the size of the state that is read, {num_state}"
            )
        self.register_buffer("mean", torch.zeros(num_inputs))
        self.register_buffer("scale", torch.ones(num_inputs))
        self.num_state = num_state
        self.projection = nn.Linear(num_state, components, bias=False) if components else None
        if self.projection is not None:
            self.projection.requires_grad_(False)
        self.query = nn.Parameter(torch.zeros(num_state)) if attention else None
        layers: list[nn.Module] = []
        sizes = [num_inputs - num_state + components if components else num_inputs, *widths]
        for index, (before, after) in enumerate(pairwise(sizes)):
            layers += [nn.Linear(before, after), nn.ReLU()]
            if index < 2:
                layers.append(nn.Dropout(DROPOUT))
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))

    @property
    def num_inputs(self) -> int:
        return int(self.mean.shape[0])

    @torch.no_grad()
    def fit_scaler(self, inputs: Inputs) -> None:
        """Fits mean and scale to `inputs`, `[rows, inputs]`, then the projection, if there is one.

        States that are not pooled yet count as the mean of their segment. A constant input gets scale 1. The
        projection is onto the principal components of the standardised state, each scaled to variance 1.
        """
        if isinstance(inputs, RaggedInputs):
            inputs = torch.cat([inputs.states.mean(), inputs.features], dim=1)
        deviation = inputs.std(dim=0, correction=0)
        self.mean.copy_(inputs.mean(dim=0))
        self.scale.copy_(torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation)))
        if self.projection is None:
            return
        state = self._standardised(inputs)[:, : self.num_state]
        # Eigenvectors of the covariance, [num_state, num_state], largest eigenvalue last.
        values, vectors = torch.linalg.eigh(state.T.double() @ state.double() / len(state))
        kept = self.projection.out_features
        values, vectors = values[-kept:].flip(0), vectors[:, -kept:].flip(1)
        self.projection.weight.copy_((vectors / values.clamp_min(1e-6).sqrt()).T.float())

    def forward(self, inputs: Inputs) -> Tensor:
        """Returns logits `[...]` of inputs `[..., inputs]`, float32; `[rows]` for states that are not pooled yet.

        Standardised inputs are clamped to +-10, so that a single outlier cannot decide alone.
        """
        if isinstance(inputs, RaggedInputs):
            inputs = torch.cat([self._attended(inputs.states), inputs.features], dim=1)
        scaled = self._standardised(inputs)
        if self.projection is not None:
            reduced = self.projection(scaled[..., : self.num_state])
            scaled = torch.cat([reduced, scaled[..., self.num_state :]], dim=-1)
        logits: Tensor = self.layers(scaled)
        return logits.squeeze(-1)

    def _attended(self, states: Ragged) -> Tensor:
        """The pooled states `[rows, num_state]`, in the scale of the states."""
        assert self.query is not None, "only a network with attention gets all states"
        scaled = (states.values - self.mean[: self.num_state]) / self.scale[: self.num_state]
        return states.attended(scaled.clamp(-_LARGEST_INPUT, _LARGEST_INPUT) @ self.query)

    def _standardised(self, inputs: Tensor) -> Tensor:
        return ((inputs - self.mean) / self.scale).clamp(-_LARGEST_INPUT, _LARGEST_INPUT)
