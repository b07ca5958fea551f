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

from semanticspec.decoding.draft import Draft
from semanticspec.engines.base import EngineInfo, StateSpec
from semanticspec.engines.runtime.threads import cpu_threads_for
from semanticspec.errors import ConfigError, ProbeError
from semanticspec.output.files import write_atomically
from semanticspec.probes.calibration import NO_CALIBRATION, Calibration, Kind
from semanticspec.probes.card import CARD_FILE, WEIGHTS_FILE, DraftInputs, ProbeCard
from semanticspec.probes.features import (
    TokenSignals,
    compute_features,
    needs_same_tokens,
    needs_signals,
    needs_text,
    signals_of,
)
from semanticspec.probes.network import ProbeNetwork
from semanticspec.probes.states import Ragged, States, joined
from semanticspec.records import Author, Reading, Sampling

_CALIBRATION = "calibration"


class Probe:
    """Estimates the probability that the model's next segment has the meaning of a given segment.

    Reads the model's forward pass over the segment; a joint probe of the target also reads the draft's, which wrote
    it. Stateless between calls; the network is in evaluation mode.
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
        """Whether it reads ranks, entropies or margins of a score."""
        return needs_signals(self.card.features)

    @property
    def needs_draft(self) -> bool:
        """Whether `estimate` needs the drafted segment, too: for the draft's pass or for the segment's text."""
        return self.card.draft is not None or needs_text(self.card.features)

    @property
    def needs_same_tokens(self) -> bool:
        """Whether it compares target and draft token by token."""
        return needs_same_tokens(self.card.features)

    @property
    def sampling(self) -> Sampling:
        """The settings under which the samples behind its labels were drawn."""
        return self.card.sampling

    def estimate(self, reading: Reading, draft: Draft | None = None) -> float:
        """Estimates one segment; see `estimate_many`."""
        with cpu_threads_for(self._num_parameters):
            return self.estimate_many([reading], None if draft is None else [draft])[0]

    @torch.inference_mode()
    def estimate_many(
        self, readings: Sequence[Reading], drafts: Sequence[Draft] | None = None
    ) -> list[float]:
        """Estimates the semantic probabilities of segments, each in [1 / (2 n), 1], n being the card's `num_samples`.

        Args:
            readings: of the model the probe was made for, from an engine whose states fit (see `check`).
            drafts: the segments that were read, as the draft wrote them; only needed if `needs_draft`.

        Raises:
            ProbeError: the states have another size, or are pooled while the probe needs all of them; or the probe
                needs drafts.
        """
        if not readings:
            return []
        card = self.card
        if drafts is None and self.needs_draft:
            raise ProbeError(
                f"the {card.role} probe also reads the draft's pass or the segment's text; give it the drafted "
                "segments: estimate(reading, draft)"
            )
        signals = [signals_of(reading) for reading in readings]
        if drafts is not None:
            signals = [signals_of(*row) for row in zip(readings, drafts, strict=True)]
        states: States = torch.zeros(len(readings), 0)
        draft_states: States | None = None
        if card.use_state:
            states = self._stacked([reading.pooled_state for reading in readings], card.hidden_size)
        if card.draft_state_size and drafts is not None:
            passes = [draft.generation.pooled_state for draft in drafts]
            draft_states = self._stacked(passes, card.draft_state_size)
        return self.probabilities(states, signals, draft_states).tolist()

    def _stacked(self, states: Sequence[Tensor], size: int) -> States:
        for state in states:
            if state.ndim not in (1, 2) or state.shape[-1] != size:
                raise ProbeError(
                    f"the {self.card.role} probe reads states of size {size}, "
                    f"got a tensor of shape {tuple(state.shape)}; load it with the model it was trained for"
                )
        moved = [state.to(self.network.mean.device, torch.float32) for state in states]
        return torch.stack(moved) if moved[0].ndim == 1 else Ragged.of(moved, size)

    @torch.inference_mode()
    def probabilities(
        self,
        states: States,
        signals: Sequence[TokenSignals],
        draft_states: States | None = None,
        *,
        calibrated: bool = True,
    ) -> Tensor:
        """Estimates many rows at once, `[rows]`, float64, on the network's device; clamped as `estimate_many`.

        Args:
            states: `[rows, hidden]`, or all states of every row.
            signals: of every row's tokens.
            draft_states: of the draft, for a joint probe that reads them; others ignore them.
            calibrated: False skips the calibration map.

        Raises:
            ProbeError: the probe reads the draft's states, and there are none.
        """
        device = self.network.mean.device
        rows = [compute_features(self.card.features, values) for values in signals]
        features = torch.tensor(rows, dtype=torch.float32, device=device).reshape(
            len(signals), len(self.card.features)
        )
        read = states.to(device, torch.float32) if self.card.use_state else None
        read_of_draft = None
        if self.card.draft_state_size:
            if draft_states is None:
                raise ProbeError("the joint probe reads the draft's states; give it `draft_states`")
            read_of_draft = draft_states.to(device, torch.float32)
        logits = self.network(joined(read, self.card.pooling, features, read_of_draft))
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
        fixable = self.card.state_mismatches(info.layer, info.pooling)
        if differences == fixable != []:
            raise self._other_states(role, info, differences, self.card.states)
        if differences:
            fix = "train a probe for it (semanticspec probe train)"
            if all(difference.startswith("adapter ") for difference in differences):
                wanted = (
                    "with that adapter (semanticspec draft merge)"
                    if self.card.adapter
                    else "without its adapter"
                )
                fix = f"load the {role} {wanted}, or {fix}"
            raise ProbeError(
                f"the {self.card.role} probe was made for {self.card.model_id}, not for {info.model_id} "
                f"as {role}: {', '.join(differences)}; {fix}"
            )
        if missing := self.card.unserved_by(info):
            raise ProbeError(
                f"the {role} probe reads {' and '.join(missing)}, which the engine of {info.model_id} does not give; "
                "train a probe that works with every engine (semanticspec probe train --features portable), or run "
                "the model on transformers or llama-cpp"
            )
        return _warnings(role, self.card, info)

    def check_draft(self, info: EngineInfo, fingerprint: str) -> list[str]:
        """Checks that a joint probe was made for a draft; see `check`. Other probes fit every draft."""
        draft, states = self.card.draft, self.card.draft_states
        if draft is None:
            return []
        differences = self.card.draft_mismatches(info, fingerprint)
        fixable = self.card.draft_state_mismatches(info.layer, info.pooling)
        if differences == fixable != [] and states is not None:
            raise self._other_states("joint", info, differences, states)
        if differences:
            raise ProbeError(
                f"the joint probe was made for the draft {draft.model_id}, not for {info.model_id}: "
                f"{', '.join(differences)}; train one for this pair (semanticspec probe train --role joint), or use a "
                "probe that reads the target only"
            )
        return _warnings("joint", draft, info)

    @staticmethod
    def _other_states(
        kind: str, info: EngineInfo, differences: Sequence[str], states: StateSpec
    ) -> ProbeError:
        return ProbeError(
            f"the {kind} probe reads other states than the engine of {info.model_id} gives: "
            f"{', '.join(differences)}; load the engine with states={states}, as load_pair does"
        )

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


def _warnings(kind: str, made_for: ProbeCard | DraftInputs, info: EngineInfo) -> list[str]:
    """Returns a warning if a model's weights are not those that a probe was trained with."""
    if not made_for.revision or not info.revision or made_for.revision == info.revision:
        return []
    return [
        f"the {kind} probe was trained with revision {made_for.revision} of {made_for.model_id}, but the "
        f"loaded revision is {info.revision}: its estimates may be off"
    ]


def network_of(card: ProbeCard) -> ProbeNetwork:
    """Builds an untrained network of the shape that a card describes."""
    return ProbeNetwork(
        card.num_state + len(card.features),
        card.widths,
        num_state=card.num_state,
        components=card.components,
        attention=card.attends,
    )
