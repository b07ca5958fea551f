"""Trains a probe: early stopping on validation problems, then calibration, then figures on test problems."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from semanticspec.engines.base import Pooling
from semanticspec.errors import ConfigError, ProbeError
from semanticspec.probes.calibration import Calibration
from semanticspec.probes.card import DEFAULT_WIDTHS, Counting, ProbeCard, ProbePooling, serves
from semanticspec.probes.features import check_features, compute_features, features_for
from semanticspec.probes.network import ProbeNetwork
from semanticspec.probes.probe import Probe
from semanticspec.probes.states import Inputs, hidden_size_of, joined
from semanticspec.records import Author, Sampling
from semanticspec.training.calibrate import CalibrationChoice, check_choice, choose
from semanticspec.training.data.examples import Examples, gather, split_of
from semanticspec.training.data.manifest import Manifest
from semanticspec.training.data.storage import Collection
from semanticspec.training.labels.label import read_labels
from semanticspec.training.metrics import card_metrics

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


def candidates(config: TrainConfig, role: Author, hidden_size: int) -> dict[Estimator, TrainConfig]:
    """Returns the estimators that `auto` tries, by name.

    `features` are the configured ones, or all that the role has. The small estimators (`features`, `components`)
    default to `SMALL_WIDTHS` and `SMALL_WEIGHT_DECAY`.
    """
    config = replace(config, estimator="given")
    features = config.features or features_for(role)
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


class Epoch(NamedTuple):
    """Progress of a training; losses are means over rows, weighted by how often each was drawn."""

    number: int
    train_loss: float
    validation_loss: float
    best: bool


class Fitted(NamedTuple):
    """A network, the settings it was fitted with, and its lowest validation loss."""

    config: TrainConfig
    network: ProbeNetwork
    validation_loss: float


OnEpoch = Callable[[Epoch], None]


def train(
    collection: Collection,
    role: Author,
    judge_name: str,
    config: TrainConfig,
    on_epoch: OnEpoch = lambda _: None,
    model_names: Sequence[str] = (),
) -> Probe:
    """Trains the probe of one role on a labelled collection; its card holds its figures on the test problems.

    Deterministic for a seed on one machine and number of threads; torch's global generator is left unchanged.

    Raises:
        ConfigError: scikit-learn is needed and missing, or the collected states cannot be pooled as configured.
        ProbeError: there are no labels, or a split has no problems.
    """
    check_choice(config.calibration)
    check_features(config.features, role)
    config = replace(config, pooling=pooling_of(collection.pooling(role), config.pooling, role))
    meanings = read_labels(collection, judge_name)
    rows = gather(collection, meanings, role, "unbiased")
    trained_on = (
        rows if config.counting == "unbiased" else gather(collection, meanings, role, config.counting)
    )
    training, validation = trained_on.of_split("train"), rows.of_split("validation")
    fitted, losses = fit_best(training, validation, role, config, on_epoch)
    calibration, calibration_losses = calibrate(fitted, validation)
    card = _card(collection.manifest, role, judge_name, fitted.config, trained_on)
    card = replace(card, calibration=calibration.kind, model_names=tuple(model_names))
    if model_names:  # a path on the machine that trained the probe means nothing elsewhere
        card = replace(card, model_id=model_names[0])
    metrics = _metrics(Probe(card, fitted.network, calibration), rows) | {
        **{f"validation_loss_{name}": round(loss, 5) for name, loss in losses.items()},
        **{f"calibration_loss_{name}": round(loss, 5) for name, loss in calibration_losses.items()},
    }
    return Probe(replace(card, metrics=metrics), fitted.network, calibration)


def fit_best(
    training: Examples,
    validation: Examples,
    role: Author,
    config: TrainConfig,
    on_epoch: OnEpoch = lambda _: None,
) -> tuple[Fitted, dict[str, float]]:
    """Fits what `config.estimator` asks for: one network, or the best of the candidates.

    Returns:
        The network, and the validation losses of all networks that were fitted, by estimator.
    """
    tried: dict[Estimator, TrainConfig] = {"given": config}
    if config.estimator != "given":
        tried = candidates(config, role, hidden_size_of(training.states))
        if config.estimator != "auto":
            tried = {config.estimator: tried[config.estimator]}
    fitted = {name: fit(training, validation, role, one, on_epoch) for name, one in tried.items()}
    best = min(fitted.values(), key=lambda one: one.validation_loss)
    return best, {name: one.validation_loss for name, one in fitted.items()}


def fit(
    training: Examples,
    validation: Examples,
    role: Author,
    config: TrainConfig,
    on_epoch: OnEpoch = lambda _: None,
) -> Fitted:
    """Fits one network; keeps the epoch with the lowest loss on the validation problems' drafted segments.

    Raises:
        ProbeError: there are no training rows or no drafted validation rows.
    """
    drafted = validation.select(validation.drafted)
    if not len(training) or not len(drafted):
        raise ProbeError(
            "no labelled segments in the training or the validation problems (problems are split "
            "60 / 20 / 20 by their ids); collect on more problems"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        inputs = inputs_of(training, config)
        num_state = hidden_size_of(training.states) if config.use_state else 0
        network = ProbeNetwork(
            num_state + len(config.features),
            DEFAULT_WIDTHS[role] if config.widths is None else config.widths,
            num_state=num_state,
            components=config.components,
            attention=config.use_state and config.pooling == "attention",
        )
        network.fit_scaler(inputs)
        loss = _descend(network, inputs, training, drafted, config, on_epoch)
    return Fitted(config, network, loss)


def calibrate(fitted: Fitted, validation: Examples) -> tuple[Calibration, dict[str, float]]:
    """Fits the calibration map of a network on the validation problems' drafted segments; see `choose`."""
    drafted = validation.select(validation.drafted)
    logits = logits_of(fitted.network, drafted, fitted.config)
    return choose(logits, drafted.labels, drafted.weights, drafted.problem_ids, fitted.config.calibration)


def inputs_of(examples: Examples, config: TrainConfig) -> Inputs:
    """Builds the network's inputs `[rows, hidden + features]`: state first, as in `Probe`.

    Raises:
        ConfigError: neither state nor features are read.
        ProbeError: attention is configured and the states are pooled already.
    """
    if not (config.use_state or config.features):
        raise ConfigError("a probe without the state needs at least one feature")
    rows = [compute_features(config.features, values) for values in examples.signals]
    features = torch.tensor(rows, dtype=torch.float32).reshape(len(rows), len(config.features))
    return joined(examples.states if config.use_state else None, config.pooling or "mean", features)


@torch.no_grad()
def logits_of(network: ProbeNetwork, examples: Examples, config: TrainConfig) -> Tensor:
    """Returns the network's logits `[rows]`; leaves it in evaluation mode."""
    network.eval()
    logits: Tensor = network(inputs_of(examples, config))
    return logits


def _descend(
    network: ProbeNetwork,
    inputs: Inputs,
    training: Examples,
    validation: Examples,
    config: TrainConfig,
    on_epoch: OnEpoch,
) -> float:
    """Trains until the validation loss has not improved for `patience` epochs, and restores the best weights.

    Returns:
        The lowest validation loss.
    """
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    validation_inputs = inputs_of(validation, config)
    best_loss, best_weights, waited = float("inf"), copy.deepcopy(network.state_dict()), 0
    for number in range(1, config.max_epochs + 1):
        train_loss = _train_epoch(network, optimizer, inputs, training, config)
        network.eval()
        with torch.no_grad():
            logits = network(validation_inputs)
            loss = float(loss_of(logits, validation.labels, validation.weights, config.loss))
        waited = 0 if loss < best_loss else waited + 1
        if waited == 0:
            best_loss, best_weights = loss, copy.deepcopy(network.state_dict())
        on_epoch(Epoch(number, train_loss, loss, waited == 0))
        if waited >= config.patience:
            break
    network.load_state_dict(best_weights)
    return best_loss


def _train_epoch(
    network: ProbeNetwork,
    optimizer: torch.optim.Optimizer,
    inputs: Inputs,
    training: Examples,
    config: TrainConfig,
) -> float:
    """Makes one pass over the training rows in random order; returns the mean of the batches' losses."""
    network.train()
    total = 0.0
    for batch in torch.split(torch.randperm(len(inputs)), config.batch_size):
        weights = training.weights[batch]
        loss = loss_of(network(inputs[batch]), training.labels[batch], weights, config.loss)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.item() * float(weights.sum())
    return total / float(training.weights.sum())


def loss_of(logits: Tensor, labels: Tensor, weights: Tensor, loss: Loss) -> Tensor:
    """Weighted mean loss of logits `[rows]` against soft labels `[rows]`; cross-entropy in nats."""
    if loss == "mse":
        losses = (torch.sigmoid(logits) - labels) ** 2
    else:
        losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return (losses * weights).sum() / weights.sum()


def _metrics(probe: Probe, rows: Examples) -> dict[str, float]:
    """Figures on the test problems, and the main ones on the validation problems."""

    def figures(examples: Examples) -> dict[str, float]:
        return card_metrics(probe.probabilities(examples.states, examples.signals).float(), examples)

    validation = figures(rows.of_split("validation"))
    main = {f"validation_{name}": validation[name] for name in ("auroc", "r2", "mae") if name in validation}
    return figures(rows.of_split("test")) | main


def _card(
    manifest: Manifest,
    role: Author,
    judge_name: str,
    config: TrainConfig,
    rows: Examples,
) -> ProbeCard:
    model = manifest.model_of(role)
    train_ids = [name for name in rows.problem_ids if split_of(name) == "train"]
    return ProbeCard(
        role=role,
        model_id=model.model_id,
        revision=model.revision,
        hidden_size=model.hidden_size,
        num_layers=model.num_layers,
        norm_state=model.norm_state,
        fingerprint=model.fingerprint,
        sampling=Sampling(**manifest.config["sampling"]),
        num_samples=manifest.config["num_samples"],
        judge=judge_name,
        counting=config.counting,
        widths=DEFAULT_WIDTHS[role] if config.widths is None else config.widths,
        features=config.features,
        use_state=config.use_state,
        components=config.components,
        layer=model.layer,
        pooling=config.pooling or "mean",
        training=asdict(config),
        num_rows=len(train_ids),
        num_problems=len(set(train_ids)),
        package_version=metadata.version("semanticspec"),
    )
