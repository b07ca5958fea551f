"""The card of a probe: what it was made for and from, saved beside its weights as JSON. Loads no torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from semanticspec.engines.base import LAST_LAYER, EngineInfo, NormState, Pooling, StateSpec
from semanticspec.errors import ConfigError, ProbeError
from semanticspec.probes.features import check_features, needs_entropies
from semanticspec.records import Author, Sampling

CARD_FORMAT = 1
CARD_FILE = "config.json"
"""Named as model repositories on the hub name it, so that a saved probe can be one."""

WEIGHTS_FILE = "model.safetensors"
DEFAULT_WIDTHS: dict[Author, tuple[int, ...]] = {"target": (2048, 512, 256), "draft": (1024, 512, 256)}
"""Widths of the hidden layers. Source: the paper's probes."""

Counting = Literal["unbiased", "paper"]
ProbePooling = Literal["mean", "last", "attention"]


def serves(pooling: Pooling, wanted: ProbePooling) -> bool:
    """Whether states an engine has pooled in one way (`none`: not at all) serve a probe that wants another."""
    return pooling in ("none", wanted)


@dataclass(frozen=True, slots=True)
class ProbeCard:
    """What a probe needs to be used rightly, and how good it is.

    Attributes:
        role: whose semantic probability it estimates.
        model_id, revision: of the model whose passes it reads, see `EngineInfo`.
        hidden_size, num_layers, norm_state: of that model; a probe for others cannot be used.
        fingerprint: of the model's tokenizer.
        sampling: the settings that its labels' samples were drawn with.
        num_samples: n, the number of samples a label was counted from.
        judge: what decided which segments mean the same.
        counting: `unbiased` (ours) or `paper`, see `semanticspec.training.labels.label`.
        widths: of the hidden layers. features: names out of `FEATURES`. use_state: False for a probe that
            reads the features only.
        components: how many principal components of the state it reads; 0 = the state itself.
        calibration: kind of the map from the network's logits to probabilities, see `calibration`.
        model_names: further names of the model, such as its hub name where `model_id` is a folder.
        training: the settings it was trained with, see `TrainConfig`.
        num_rows, num_problems: of the training set.
        metrics: figures on problems held out from training.
        layer, pooling: which states it reads. `attention`: all of a segment, weighted by what it has learnt. The
            layer is numbered as in `StateSpec`. span: of which positions; fixed.
        package_version: that made it.
        weights_digest: SHA-256 of the weights file, so that a card and other weights are not mixed up.
    """

    role: Author
    model_id: str
    revision: str
    hidden_size: int
    num_layers: int
    norm_state: NormState
    fingerprint: str
    sampling: Sampling
    num_samples: int
    judge: str
    counting: Counting
    widths: tuple[int, ...]
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
    package_version: str = ""
    weights_digest: str = ""
    format: int = CARD_FORMAT

    def __post_init__(self) -> None:
        check_features(self.features)
        if self.role not in get_args(Author):
            raise ConfigError(f"a probe's role is {self.role!r}; expected target or draft")
        if self.num_samples < 2 or self.hidden_size < 1 or any(width < 1 for width in self.widths):
            raise ConfigError("a probe needs num_samples >= 2, a hidden size and widths of at least 1")
        if not self.use_state and not self.features:
            raise ConfigError("a probe without the state needs at least one feature")
        if self.components and not (self.use_state and 0 < self.components <= self.hidden_size):
            raise ConfigError(
                f"components is {self.components}; expected at most the state's size, {self.hidden_size}, "
                "and a probe that reads the state"
            )
        if self.pooling not in get_args(ProbePooling):
            raise ConfigError(
                f"a probe's pooling is {self.pooling!r}; expected one of {', '.join(get_args(ProbePooling))}"
            )
        self.states.check(self.num_layers)

    @property
    def smallest_probability(self) -> float:
        """What estimates are clamped to: n samples cannot tell a smaller share from none."""
        return 1 / (2 * self.num_samples)

    @property
    def num_state(self) -> int:
        """How many values of the state it reads."""
        return self.hidden_size * self.use_state

    @property
    def attends(self) -> bool:
        """Whether it reads every state of a segment."""
        return self.use_state and self.pooling == "attention"

    @property
    def states(self) -> StateSpec:
        """What its model's engine has to be loaded with; the default where it reads no state."""
        if not self.use_state:
            return StateSpec()
        return StateSpec(self.layer, "none" if self.pooling == "attention" else self.pooling)

    @property
    def estimator(self) -> str:
        """What it reads, in a word: features, state, both or components (with the features, if it has any)."""
        if not self.use_state:
            return "features"
        if self.components:
            return "components"
        return "both" if self.features else "state"

    @property
    def names(self) -> tuple[str, ...]:
        """All names its model is known by, the best for people first."""
        return tuple(dict.fromkeys((*self.model_names, self.model_id)))

    def served_by(self, info: EngineInfo) -> bool:
        """Whether an engine gives what the features are made of: not every one gives entropies."""
        return info.capabilities.entropies or not needs_entropies(self.features)

    def mismatches(self, info: EngineInfo, fingerprint: str, role: Author) -> list[str]:
        """What makes the probe unusable with a model, each as `name got, expected`; empty if it fits."""
        pairs: list[tuple[str, object, object]] = [
            ("role", self.role, role),
            ("hidden size", self.hidden_size, info.hidden_size),
            ("number of layers", self.num_layers, info.num_layers),
            ("tokenizer", self.fingerprint, fingerprint),
        ]
        if self.use_state and self.layer == info.layer:
            pairs.append(("norm state", self.norm_state, info.norm_state))
        found = [f"{name} {mine} instead of {its}" for name, mine, its in pairs if mine != its]
        return found + self.state_mismatches(info.layer, info.pooling)

    def state_mismatches(self, layer: int, pooling: Pooling) -> list[str]:
        """Those of `mismatches` that another `StateSpec` for the same model would mend."""
        if not self.use_state:
            return []
        found = [f"layer {self.layer} instead of {layer}"] * (self.layer != layer)
        return found + [f"pooling {self.pooling} instead of {pooling}"] * (not serves(pooling, self.pooling))

    def to_json(self) -> str:
        """The card as indented JSON."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, origin: str = "the card") -> ProbeCard:
        """Reads a card.

        Raises:
            ProbeError: it is no JSON object, was made by a newer version, or its fields are not those of a
                card.
        """
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise ProbeError(
                f"{origin} is not readable as JSON ({error}); train or copy the probe again"
            ) from error
        if not isinstance(content, dict):
            raise ProbeError(f"{origin} holds no JSON object; train or copy the probe again")
        if isinstance(content.get("format"), int) and content["format"] > CARD_FORMAT:
            raise ProbeError(
                f"{origin} has format {content['format']}, this version reads up to {CARD_FORMAT}: "
                "update semanticspec"
            )
        _check_names(content, cls, origin)
        try:
            return cls(**_typed(content))
        except (TypeError, ValueError) as error:
            raise ProbeError(f"{origin} has a bad value: {error}") from error


def _check_names(content: dict[str, Any], card: type[ProbeCard], origin: str) -> None:
    known = {entry.name for entry in fields(card)}
    unknown, missing = sorted(content.keys() - known), sorted(known - content.keys())
    if unknown or missing:
        complaints = [f"unknown: {', '.join(unknown)}"] * bool(unknown) + [
            f"missing: {', '.join(missing)}"
        ] * bool(missing)
        raise ProbeError(f"{origin} does not have the fields of a probe card ({'; '.join(complaints)})")


def _typed(content: dict[str, Any]) -> dict[str, Any]:
    """JSON's lists and objects turned into the card's own types, scalars checked."""
    expected = {
        **dict.fromkeys(
            ("hidden_size", "num_layers", "num_samples", "num_rows", "num_problems", "layer", "components"),
            int,
        ),
        **dict.fromkeys(
            ("role", "model_id", "revision", "norm_state", "fingerprint", "judge", "counting"), str
        ),
        **dict.fromkeys(("span", "pooling", "package_version", "weights_digest", "calibration"), str),
        **dict.fromkeys(("widths", "features", "model_names"), list),
        **dict.fromkeys(("sampling", "metrics", "training"), dict),
        "use_state": bool,
    }
    for name, kind in expected.items():
        if not isinstance(content[name], kind):
            raise TypeError(f"{name} is {content[name]!r}, expected {kind.__name__}")
    return {
        **content,
        "sampling": Sampling(**content["sampling"]),
        "widths": tuple(int(width) for width in content["widths"]),
        "features": tuple(content["features"]),
        "model_names": tuple(str(name) for name in content["model_names"]),
        "metrics": {str(name): float(value) for name, value in content["metrics"].items()},
    }
