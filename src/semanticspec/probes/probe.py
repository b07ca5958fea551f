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
from semanticspec.engines.runtime.pooling import pooled
from semanticspec.errors import ConfigError, ProbeError
from semanticspec.output.files import write_atomically
from semanticspec.probes.calibration import NO_CALIBRATION, Calibration, Kind
from semanticspec.probes.card import CARD_FILE, WEIGHTS_FILE, ProbeCard
from semanticspec.probes.features import TokenSignals, compute_features, signals_of
from semanticspec.probes.network import ProbeNetwork
from semanticspec.probes.states import Ragged, States, joined
from semanticspec.records import Author, Reading

_CALIBRATION = "calibration"


class Probe:
    """Estimates P(the model's next segment has this segment's meaning) from the model's reading of the
    segment.

    Holds no state between calls; the network stays in evaluation mode.
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
            raise ProbeError(f"the probe's network does not pool as its card says, by {card.pooling}")
        if calibration.kind != card.calibration:
            raise ProbeError(
                f"the probe's calibration is {calibration.kind!r}, its card says {card.calibration!r}"
            )
        self.card = card
        self.calibration = calibration
        self.network = network.eval().requires_grad_(False)

    def estimate(self, reading: Reading) -> float:
        """The semantic probability of one segment, in [1 / (2 n), 1]. See `estimate_many`."""
        return self.estimate_many([reading])[0]

    @torch.inference_mode()
    def estimate_many(self, readings: Sequence[Reading]) -> list[float]:
        """The semantic probabilities of segments, each in [1 / (2 n), 1], n being the card's number of
        samples.

        Args:
            readings: of the model the probe was made for, from an engine whose states serve it (see `check`).

        Raises:
            ProbeError: a pooled state has another size, or is one where the probe needs all of them.
        """
        if not readings:
            return []
        states: States = torch.zeros(len(readings), 0)
        if self.card.use_state:
            states = self._states([reading.pooled_state for reading in readings])
        probabilities = self.probabilities(states, [signals_of(reading) for reading in readings])
        return [float(value) for value in probabilities.tolist()]

    def _states(self, found: Sequence[Tensor]) -> States:
        """The readings' states together, those that no engine has pooled pooled as the card says."""
        card = self.card
        for state in found:
            if state.ndim not in (1, 2) or state.shape[-1] != card.hidden_size:
                raise ProbeError(
                    f"the {card.role} probe reads states of size {card.hidden_size}, got {tuple(state.shape)}"
                )
            if card.attends and state.ndim == 1:
                raise ProbeError(
                    f"the {card.role} probe reads every state of a segment, got a pooled one; load its engine "
                    f"with states={card.states}"
                )
        states = [state.to(self.network.mean.device, torch.float32) for state in found]
        if card.pooling == "attention":
            return Ragged.of(states, card.hidden_size)
        pooling = card.pooling
        return torch.stack([pooled(state, pooling) if state.ndim == 2 else state for state in states])

    @torch.inference_mode()
    def probabilities(
        self, states: States, signals: Sequence[TokenSignals], *, calibrated: bool = True
    ) -> Tensor:
        """The same for many rows at once, `[rows]`, float64, on the network's device.

        Args:
            states: `[rows, hidden]`, or all of every row. signals: of every row's tokens.
            calibrated: False leaves the calibration map out, to see what it does.
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
        """Says whether the probe was made for this model.

        A folder's name may change, so another model id alone is no matter.

        Args:
            info: of the engine whose readings the probe is to get.
            fingerprint: of the engine's tokenizer.

        Returns:
            Warnings, in words: the weights are others than the probe was trained with.

        Raises:
            ProbeError: role, hidden size, number of layers, norm state or tokenizer differ, or the engine reads
                another layer's states or pools them so that the probe has no use for them, or gives no entropies.
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
                f"the {role} probe reads entropies, which the engine of {info.model_id} does not give; train one that "
                "every engine can serve (semanticspec probe train --features portable), or run the model on "
                "transformers or llama-cpp"
            )
        if self.card.revision and info.revision and self.card.revision != info.revision:
            return [
                f"the {role} probe was trained with revision {self.card.revision} of {self.card.model_id}, "
                f"the model at hand is {info.revision}: its estimates may be off"
            ]
        return []

    def save(self, folder: Path | str) -> None:
        """Writes `model.safetensors` and `config.json`; a reader sees each file old or new, never half."""
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
            device: where the network works; states on other devices are moved there.

        Raises:
            ProbeError: the folder or a file is missing, broken, of a newer format, or they do not fit
                together.
        """
        folder = Path(folder)
        weights, card_text = _read(folder, WEIGHTS_FILE), _read(folder, CARD_FILE)
        card = ProbeCard.from_json(card_text.decode(errors="replace"), str(folder / CARD_FILE))
        if card.weights_digest != hashlib.sha256(weights).hexdigest():
            raise ProbeError(
                f"{folder / WEIGHTS_FILE} is not the file its card describes (broken or replaced); "
                "copy or train it again"
            )
        try:
            network = network_of(card)
            tensors = load_weights(weights)
            values = tensors.pop(_CALIBRATION, NO_CALIBRATION.values)
            calibration = Calibration(cast(Kind, card.calibration), values)
            network.load_state_dict(tensors)
        except (SafetensorError, RuntimeError, ConfigError, ProbeError) as error:
            raise ProbeError(
                f"{folder / WEIGHTS_FILE} does not hold the network its card describes: {error}"
            ) from error
        return cls(card, network.to(device), calibration)


def network_of(card: ProbeCard) -> ProbeNetwork:
    """An untrained network of the shape the card describes."""
    return ProbeNetwork(
        card.num_state + len(card.features),
        card.widths,
        num_state=card.num_state,
        components=card.components,
        attention=card.attends,
    )


def _read(folder: Path, name: str) -> bytes:
    if not folder.is_dir():
        raise ProbeError(
            f"there is no probe folder {folder}; train one with: semanticspec probe train --out {folder}"
        )
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise ProbeError(
            f"{folder} is no complete probe: {name} cannot be read ({error.strerror}); train or copy it again"
        ) from error
