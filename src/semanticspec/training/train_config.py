"""How a probe is trained: its settings, the estimators that are tried, the pooling of its states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from semanticspec.engines.base import Pooling
from semanticspec.errors import ConfigError
from semanticspec.probes.card import Counting, ProbePooling, serves
from semanticspec.probes.features import check_features, features_for, needs_draft_pass
from semanticspec.records import Author
from semanticspec.training.calibrate import CalibrationChoice

Loss = Literal["bce", "mse"]
Estimator = Literal["given", "auto", "features", "state", "both", "components"]
SMALL_WIDTHS = (64, 32)
"""Default widths of the estimators meant for few problems."""

SMALL_COMPONENTS = 16
NUM_CANDIDATES = 4
SMALL_WEIGHT_DECAY = 0.01


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How a probe is trained.

    Attributes:
        estimator: what the probe reads. `given`: as `features`, `use_state` and `components` say. `features`,
            `state`, `both` or `components` (principal components of the state, and the features): see `candidates`.
            `auto`: trains all four and keeps the one with the lowest validation loss.
        widths: of the hidden layers; None = the paper's for the role, () = no hidden layer (a linear probe).
        features: names out of `FEATURES`, read beside the state.
        use_state: False leaves the state out.
        joint: for the target's probe: it reads the draft's pass too, both states in one network. It is trained on
            draft-written segments only, which are what it sees in use.
        components: number of principal components of the state; 0 = the state itself.
        pooling: of a segment's states: `mean`, `last`, or `attention`, which is learnt with the network; None = as
            collected (`mean` if all states were collected).
        loss: `bce`, cross-entropy with soft labels, or `mse` (source: the paper's).
        counting: of the training labels; figures always use `unbiased` labels.
        calibration: `auto` takes the map with the lowest cross-validated loss on the validation problems.
        max_epochs, patience: early stopping on validation problems. Source: 100 and 10 in the paper.
        learning_rate: of AdamW. Source: 1e-3 in the paper.
        weight_decay: of AdamW, 0 = plain Adam.
        batch_size: rows per step.
        seed: of initial weights, order of rows and dropout.
    """

    estimator: Estimator = "given"
    widths: tuple[int, ...] | None = None
    features: tuple[str, ...] = ()
    use_state: bool = True
    components: int = 0
    pooling: ProbePooling | None = None
    loss: Loss = "bce"
    counting: Counting = "unbiased"
    calibration: CalibrationChoice = "auto"
    max_epochs: int = 100
    patience: int = 10
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    batch_size: int = 256
    seed: int = 0
    joint: bool = False

    def __post_init__(self) -> None:
        check_features(self.features)
        choices = (
            ("loss", self.loss, get_args(Loss)),
            ("counting", self.counting, get_args(Counting)),
            ("estimator", self.estimator, get_args(Estimator)),
            ("calibration", self.calibration, get_args(CalibrationChoice)),
            ("pooling", self.pooling, (None, *get_args(ProbePooling))),
        )
        for name, value, allowed in choices:
            if value not in allowed:
                raise ConfigError(f"{name} is {value!r}; expected one of {', '.join(filter(None, allowed))}")
        for name in ("max_epochs", "patience", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 1 or more")
        if self.widths is not None and any(width < 1 for width in self.widths):
            raise ConfigError(f"widths is {self.widths}; expected layers of 1 or more")
        if self.components < 0 or (self.components and not self.use_state):
            raise ConfigError(f"components is {self.components}; expected 0, or 1 and more with use_state")
        if self.joint and self.pooling == "attention":
            raise ConfigError("a joint probe pools the states of both models by mean or last; got attention")

    @property
    def reads_draft(self) -> bool:
        """Whether a target's probe also reads the draft's pass: its states, or its log-probabilities as features."""
        return self.joint or needs_draft_pass(self.features)

    @property
    def reads_draft_state(self) -> bool:
        """Whether a target's probe also reads the draft's states."""
        return self.joint and self.use_state


def candidates(
    config: TrainConfig, role: Author, hidden_size: int, features: Sequence[str] = ()
) -> dict[Estimator, TrainConfig]:
    """Returns the estimators that `auto` tries, by name.

    The small estimators (`features`, `components`) default to `SMALL_WIDTHS` and `SMALL_WEIGHT_DECAY`.

    Args:
        features: what they read unless the configuration names features; none: all that the role has.
    """
    config = replace(config, estimator="given")
    features = config.features or tuple(features) or features_for(role, joint=config.joint)
    widths = SMALL_WIDTHS if config.widths is None else config.widths
    small = replace(config, widths=widths, weight_decay=config.weight_decay or SMALL_WEIGHT_DECAY)
    components = config.components or min(SMALL_COMPONENTS, hidden_size)
    return {
        "features": replace(small, features=features, use_state=False, components=0),
        "components": replace(small, features=features, use_state=True, components=components),
        "state": replace(config, features=(), use_state=True, components=0),
        "both": replace(config, features=features, use_state=True, components=0),
    }


def pooling_of(collected: Pooling, wanted: ProbePooling | None, role: Author) -> ProbePooling:
    """Returns the pooling of a probe that is trained on states collected with `collected`.

    Raises:
        ConfigError: the collected states cannot be pooled as wanted.
    """
    if wanted is None:
        return "mean" if collected == "none" else collected
    if not serves(collected, wanted):
        needed = "none" if wanted == "attention" else f"{wanted} or none"
        raise ConfigError(
            f"the {role}'s probe cannot have the pooling {wanted!r}: its states are collected with the pooling "
            f"{collected!r}; collect into a new folder with the pooling {needed} (semanticspec probe collect "
            f"--pooling {needed.split()[-1]}), or train with the pooling {collected!r}"
        )
    return wanted
