"""A trained probe: loaded from a folder, checked against its model, asked for semantic probabilities."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_weights
from safetensors.torch import save as save_weights
from torch import Tensor

from semanticspec.engines.base import EngineInfo
from semanticspec.engines.runtime.threads import cpu_threads_for
from semanticspec.errors import ConfigError, ProbeError
from semanticspec.output.files import write_atomically
from semanticspec.probes.calibration import NO_CALIBRATION, Calibration, Kind
from semanticspec.probes.card import CARD_FILE, WEIGHTS_FILE, ProbeCard
from semanticspec.probes.features import TokenSignals, compute_features, needs_signals, signals_of
from semanticspec.probes.network import ProbeNetwork
from semanticspec.probes.states import Ragged, States, joined
from semanticspec.records import Author, Reading, Sampling

_CALIBRATION = "calibration"


class Probe:
    """Estimates the probability that the model's next segment has the meaning of a given segment.

    Reads the model's forward pass over the segment. Stateless between calls; the network is in evaluation mode.
    """

    def __init__(
        self, card: ProbeCard, network: ProbeNetwork, calibration: Calibration = NO_CALIBRATION
    ) -> None:
        expected = card.num_state + len(card.features)
        if network.num_inputs != expected:
            raise ProbeError(
                f"the probe's network reads {network.num_inputs} values, its card says {expected}"
            )
        if (network.query is not None) != card.attends:
            raise ProbeError(f"the probe's network does not pool states as its card says, by {card.pooling}")
        if calibration.kind != card.calibration:
            raise ProbeError(
                f"the probe's calibration is {calibration.kind!r}, its card says {card.calibration!r}"
            )
        self.card = card
        self.calibration = calibration
        self.network = network.eval().requires_grad_(False)
        self._num_parameters = sum(parameter.numel() for parameter in network.parameters())

    @property
    def needs_signals(self) -> bool:
        """Whether it reads ranks or entropies of a score."""
        return needs_signals(self.card.features)

    @property
    def sampling(self) -> Sampling:
        """The settings under which the samples behind its labels were drawn."""
        return self.card.sampling

    def estimate(self, reading: Reading) -> float:
        """Estimates one segment; see `estimate_many`."""
        with cpu_threads_for(self._num_parameters):
            return self.estimate_many([reading])[0]

    @torch.inference_mode()
    def estimate_many(self, readings: Sequence[Reading]) -> list[float]:
        """Estimates the semantic probabilities of segments, each in [1 / (2 n), 1], n being the card's `num_samples`.

        Args:
            readings: of the model the probe was made for, from an engine whose states fit (see `check`).

        Raises:
            ProbeError: the states have another size, or are pooled while the probe needs all of them.
        """
        if not readings:
            return []
        states: States = torch.zeros(len(readings), 0)
        if self.card.use_state:
            states = self._stacked([reading.pooled_state for reading in readings])
        return self.probabilities(states, [signals_of(reading) for reading in readings]).tolist()

    def _stacked(self, states: Sequence[Tensor]) -> States:
        for state in states:
            if state.ndim not in (1, 2) or state.shape[-1] != self.card.hidden_size:
                raise ProbeError(
                    f"the {self.card.role} probe reads states of size {self.card.hidden_size}, "
                    f"got a tensor of shape {tuple(state.shape)}; load it with the model it was trained for"
                )
        moved = [state.to(self.network.mean.device, torch.float32) for state in states]
        return torch.stack(moved) if moved[0].ndim == 1 else Ragged.of(moved, self.card.hidden_size)

    @torch.inference_mode()
    def probabilities(
        self, states: States, signals: Sequence[TokenSignals], *, calibrated: bool = True
    ) -> Tensor:
        """Estimates many rows at once, `[rows]`, float64, on the network's device; clamped as `estimate_many`.

        Args:
            states: `[rows, hidden]`, or all states of every row.
            signals: of every row's tokens.
            calibrated: False skips the calibration map.
        """
        device = self.network.mean.device
        rows = [compute_features(self.card.features, values) for values in signals]
        features = torch.tensor(rows, dtype=torch.float32, device=device).reshape(
            len(signals), len(self.card.features)
        )
        read = states.to(device, torch.float32) if self.card.use_state else None
        logits = self.network(joined(read, self.card.pooling, features))
        values = self.calibration.apply(logits) if calibrated else torch.sigmoid(logits)
        return values.double().clamp(self.card.smallest_probability, 1.0)

    def check(self, info: EngineInfo, fingerprint: str, role: Author) -> list[str]:
        """Checks that the probe was made for a model. Another model id alone is fine: folders get renamed.

        Args:
            info: of the engine whose readings the probe will get.
            fingerprint: of the engine's tokenizer.

        Returns:
            Warnings: the model's weights differ from those the probe was trained with.

        Raises:
            ProbeError: role, shape or tokenizer differ, or the engine does not provide the states (layer, pooling)
                or the entropies that the probe reads.
        """
        differences = self.card.mismatches(info, fingerprint, role)
        if differences == self.card.state_mismatches(info.layer, info.pooling) != []:
            raise ProbeError(
                f"the {role} probe reads other states than the engine of {info.model_id} gives: "
                f"{', '.join(differences)}; load the engine with states={self.card.states}, as load_pair does"
            )
        if differences:
            raise ProbeError(
                f"the {self.card.role} probe was made for {self.card.model_id}, not for {info.model_id} "
                f"as {role}: {', '.join(differences)}; train a probe for it (semanticspec probe train)"
            )
        if not self.card.served_by(info):
            raise ProbeError(
                f"the {role} probe reads entropies, which the engine of {info.model_id} does not give; train a "
                "probe that works with every engine (semanticspec probe train --features portable), or run the model "
                "on transformers or llama-cpp"
            )
        if self.card.revision and info.revision and self.card.revision != info.revision:
            return [
                f"the {role} probe was trained with revision {self.card.revision} of {self.card.model_id}, but the "
                f"loaded revision is {info.revision}: its estimates may be off"
            ]
        return []

    def save(self, folder: Path | str) -> None:
        """Writes `model.safetensors` and `config.json`, each atomically."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: value.contiguous() for name, value in self.network.state_dict().items()}
        if self.calibration.kind != "none":
            tensors[_CALIBRATION] = self.calibration.values.contiguous()
        weights = save_weights(tensors)
        card = replace(self.card, weights_digest=hashlib.sha256(weights).hexdigest())
        write_atomically(folder / WEIGHTS_FILE, weights)
        write_atomically(folder / CARD_FILE, card.to_json().encode())

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu") -> Probe:
        """Reads a probe that `save` wrote.

        Args:
            device: of the network; states on other devices are moved there.

        Raises:
            ProbeError: the folder or a file is missing, broken or of a newer format, or card and weights do not
                belong together.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise ProbeError(
                f"there is no probe folder {folder}; train one with: semanticspec probe train --out {folder}"
            )
        card, path = ProbeCard.read(folder / CARD_FILE), folder / WEIGHTS_FILE
        try:
            weights = path.read_bytes()
        except OSError as error:
            raise ProbeError(
                f"{path} cannot be read ({error.strerror}); train or copy the probe again"
            ) from error
        if card.weights_digest != hashlib.sha256(weights).hexdigest():
            raise ProbeError(
                f"{path} is not the file that its card describes (broken or replaced); train or copy the probe again"
            )
        try:
            network = network_of(card)
            tensors = load_weights(weights)
            values = tensors.pop(_CALIBRATION, NO_CALIBRATION.values)
            calibration = Calibration(cast(Kind, card.calibration), values)
            network.load_state_dict(tensors)
        except (SafetensorError, RuntimeError, ConfigError, ProbeError) as error:
            reason = " ".join(str(error).split())
            raise ProbeError(
                f"{path} does not hold the network that its card describes: {reason}; train or copy the probe again"
            ) from error
        return cls(card, network.to(device), calibration)


def network_of(card: ProbeCard) -> ProbeNetwork:
    """Builds an untrained network of the shape that a card describes."""
    return ProbeNetwork(
        card.num_state + len(card.features),
        card.widths,
        num_state=card.num_state,
        components=card.components,
        attention=card.attends,
    )
