"""The card of a probe: what it was made for and from; JSON beside its weights. Loads no torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, with_config

from semanticspec.engines.base import LAST_LAYER, EngineInfo, NormState, Pooling, StateSpec
from semanticspec.errors import ConfigError, ProbeError
from semanticspec.output.validation import STRICT, parse_json
from semanticspec.probes.features import check_features, unserved
from semanticspec.records import Author, Sampling

CARD_FORMAT = 1
CARD_FILE = "config.json"
"""The name that hub repositories use, so that a saved probe can be one."""

WEIGHTS_FILE = "model.safetensors"
DEFAULT_WIDTHS: dict[Author, tuple[int, ...]] = {"target": (2048, 512, 256), "draft": (1024, 512, 256)}
"""Widths of the hidden layers. Source: the paper's probes."""

Counting = Literal["unbiased", "paper"]
ProbePooling = Literal["mean", "last", "attention"]


def serves(pooling: Pooling, wanted: ProbePooling) -> bool:
    """Whether states that an engine pooled with `pooling` can be used by a probe that needs `wanted`."""
    return pooling in ("none", wanted)


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class DraftInputs:
    """The draft whose pass over a segment a joint probe reads beside the target's.

    Attributes:
        model_id, revision, hidden_size, num_layers, norm_state, fingerprint, layer: as in `ProbeCard`, of the draft.
        use_state: False for a probe that reads the draft's log-probabilities only.
        adapter: digest of the LoRA adapter that the draft's weights contained; "" if they contained none.
    """

    model_id: str
    revision: str
    hidden_size: Annotated[int, Field(ge=1)]
    num_layers: int
    norm_state: NormState
    fingerprint: str
    layer: int = LAST_LAYER
    use_state: bool = True
    adapter: str = ""


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class ProbeCard:
    """What a probe was made for and from, and how good it is.

    Attributes:
        role: whose semantic probability it estimates.
        model_id, revision: the model whose passes it reads, see `EngineInfo`.
        hidden_size, num_layers, norm_state: of that model; the probe cannot be used with others.
        fingerprint: of the model's tokenizer.
        sampling: settings of the samples behind the labels.
        num_samples: n, samples per label.
        judge: which judge decided which segments mean the same.
        counting: `unbiased` (ours) or `paper`, see `semanticspec.training.labels.label`.
        widths: of the hidden layers.
        features: names out of `FEATURES`.
        use_state: False for a probe that reads the features only.
        components: number of principal components of the state it reads; 0 = the state itself.
        calibration: kind of the map from logits to probabilities, see `calibration`.
        model_names: further names of the model, such as its hub name where `model_id` is a folder.
        training: the settings it was trained with, see `TrainConfig`.
        num_rows, num_problems: size of the training set.
        metrics: figures on problems held out from training.
        layer: which layer's states it reads, numbered as in `StateSpec`.
        span: which positions' states it reads; fixed.
        pooling: how the states of a segment become one, the draft's too; `attention` is learnt with the network.
        draft: for a joint probe of the target: the draft whose pass it reads too.
        adapter: digest of the LoRA adapter that the model's weights contained, see `EngineInfo`.
        package_version: version of semanticspec that made it.
        weights_digest: SHA-256 of the weights file, so that card and weights cannot be mixed up.
    """

    role: Author
    model_id: str
    revision: str
    hidden_size: Annotated[int, Field(ge=1)]
    num_layers: int
    norm_state: NormState
    fingerprint: str
    sampling: Sampling
    num_samples: Annotated[int, Field(ge=2)]
    judge: str
    counting: Counting
    widths: tuple[Annotated[int, Field(ge=1)], ...]
    features: tuple[str, ...] = ()
    use_state: bool = True
    components: int = 0
    calibration: str = "none"
    model_names: tuple[str, ...] = ()
    training: dict[str, Any] = field(default_factory=dict)
    num_rows: int = 0
    num_problems: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    layer: int = LAST_LAYER
    span: str = "predicting positions"
    pooling: ProbePooling = "mean"
    adapter: str = ""
    package_version: str = ""
    weights_digest: str = ""
    draft: DraftInputs | None = None
    format: Annotated[int, Field(le=CARD_FORMAT)] = CARD_FORMAT

    def __post_init__(self) -> None:
        check_features(self.features)
        if not self.use_state and not self.features:
            raise ConfigError("a probe without the state needs at least one feature")
        if self.draft is not None and self.role != "target":
            raise ConfigError(
                "only a target's probe reads the draft's pass too; leave `draft` out of this card"
            )
        if self.components and not (self.use_state and 0 < self.components <= self.num_state):
            raise ConfigError(
                f"components is {self.components}; expected at most the size of the state, {self.num_state}, "
                "and a probe that reads the state"
            )
        if self.pooling not in get_args(ProbePooling):
            raise ConfigError(
                f"a probe's pooling is {self.pooling!r}; expected one of {', '.join(get_args(ProbePooling))}"
            )
        if self.draft_state_size and not (self.use_state and self.pooling != "attention"):
            raise ConfigError(
                "a probe that reads the draft's state also reads the target's, both pooled by mean or last; "
                f"got use_state {self.use_state} and pooling {self.pooling}"
            )
        self.states.check(self.num_layers)

    @property
    def smallest_probability(self) -> float:
        """Lower bound of the estimates: n samples cannot tell a smaller share from none."""
        return 1 / (2 * self.num_samples)

    @property
    def num_state(self) -> int:
        """Number of inputs that come from states: the target's, then the draft's."""
        return self.hidden_size * self.use_state + self.draft_state_size

    @property
    def draft_state_size(self) -> int:
        """Number of inputs that come from the draft's state; 0 if it is not read."""
        return self.draft.hidden_size if self.draft is not None and self.draft.use_state else 0

    @property
    def attends(self) -> bool:
        """Whether the network pools the states itself, by learnt attention."""
        return self.use_state and self.pooling == "attention"

    @property
    def states(self) -> StateSpec:
        """The states its model's engine must be loaded with; the default if it reads no state."""
        if not self.use_state:
            return StateSpec()
        return StateSpec(self.layer, "none" if self.pooling == "attention" else self.pooling)

    @property
    def draft_states(self) -> StateSpec | None:
        """The states that the draft's engine must be loaded with; None if they are not read."""
        if self.draft is None or not self.draft_state_size:
            return None
        return StateSpec(self.draft.layer, "last" if self.pooling == "last" else "mean")

    @property
    def estimator(self) -> str:
        """What it reads: features, state, both, or components (with the features, if it has any)."""
        if not self.use_state:
            return "features"
        if self.components:
            return "components"
        return "both" if self.features else "state"

    @property
    def names(self) -> tuple[str, ...]:
        """All names of its model, the most readable first."""
        return tuple(dict.fromkeys((*self.model_names, self.model_id)))

    def unserved_by(self, info: EngineInfo) -> list[str]:
        """Returns what the features need and an engine does not give: not every engine gives entropies and margins."""
        can = info.capabilities
        return unserved(self.features, entropies=can.entropies, margins=can.margins)

    def mismatches(self, info: EngineInfo, fingerprint: str, role: Author) -> list[str]:
        """Returns what makes the probe unusable with a model, as `name x instead of y`; empty if it fits."""
        roles = [f"role {self.role} instead of {role}"] * (self.role != role)
        found = _model_mismatches(self, info, fingerprint)
        return roles + found + self.state_mismatches(info.layer, info.pooling)

    def state_mismatches(self, layer: int, pooling: Pooling) -> list[str]:
        """Returns those mismatches that loading the same model with another `StateSpec` would fix."""
        return self._state_mismatches(self, layer, pooling)

    def draft_mismatches(self, info: EngineInfo, fingerprint: str) -> list[str]:
        """Returns what makes a joint probe unusable with a draft; see `mismatches`."""
        if self.draft is None:
            return []
        found = _model_mismatches(self.draft, info, fingerprint)
        return found + self.draft_state_mismatches(info.layer, info.pooling)

    def draft_state_mismatches(self, layer: int, pooling: Pooling) -> list[str]:
        """Returns those mismatches that loading the same draft with another `StateSpec` would fix."""
        return self._state_mismatches(self.draft, layer, pooling) if self.draft is not None else []

    def _state_mismatches(self, reads: ProbeCard | DraftInputs, layer: int, pooling: Pooling) -> list[str]:
        if not reads.use_state:
            return []
        found = [f"layer {reads.layer} instead of {layer}"] * (reads.layer != layer)
        return found + [f"pooling {self.pooling} instead of {pooling}"] * (not serves(pooling, self.pooling))

    def to_json(self) -> str:
        """The card as indented JSON."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def read(cls, path: Path) -> ProbeCard:
        """Reads a card.

        Raises:
            ProbeError: the file cannot be read, or is not a card of this or an earlier format.
        """
        try:
            text = path.read_bytes()
        except OSError as error:
            raise ProbeError(
                f"{path} cannot be read ({error.strerror}); train or copy the probe again"
            ) from error
        hint = "train or copy the probe again, or update semanticspec if a newer version made it"
        return parse_json(cls, text, str(path), raises=ProbeError, hint=hint)


def _model_mismatches(made_for: ProbeCard | DraftInputs, info: EngineInfo, fingerprint: str) -> list[str]:
    pairs: list[tuple[str, object, object]] = [
        ("hidden size", made_for.hidden_size, info.hidden_size),
        ("number of layers", made_for.num_layers, info.num_layers),
        ("tokenizer", made_for.fingerprint, fingerprint),
        ("adapter", made_for.adapter or "none", info.adapter or "none"),
    ]
    if made_for.use_state and made_for.layer == info.layer:
        pairs.append(("norm state", made_for.norm_state, info.norm_state))
    return [f"{name} {mine} instead of {its}" for name, mine, its in pairs if mine != its]
