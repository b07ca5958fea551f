"""Third stage: trains a probe, keeps what did best on validation problems, calibrates it, measures it on others."""

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
from semanticspec.training.labels.label import read_meanings
from semanticspec.training.metrics import card_metrics

Loss = Literal["bce", "mse"]
Estimator = Literal["given", "auto", "features", "state", "both", "components"]
SMALL_WIDTHS = (64, 32)
"""Of the estimators meant for few problems, where none are given."""

SMALL_COMPONENTS = 16
NUM_CANDIDATES = 4
SMALL_WEIGHT_DECAY = 0.01


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How a probe is trained.

    Attributes:
        estimator: what the probe reads. `given`: what the next three settings say. `features`, `state`,
            `both`, or `components` (principal components of the state, and the features): see `candidates`.
            `auto`: each of these is trained, the one with the least validation loss is kept.
        widths: of the hidden layers; None = the paper's for the role, () = none, a linear probe.
        features: names out of `FEATURES`, beside the state. use_state: False leaves the state out.
        components: how many principal components of the state are read; 0 = the state itself.
        pooling: of a segment's states: `mean`, `last`, or `attention`, which is learnt with the network; None = as
            they were collected, and the mean where they were collected one by one.
        loss: `bce`, cross-entropy with soft labels, or `mse` (source: the paper's).
        counting: of the labels trained on; figures are always taken on `unbiased` ones.
        calibration: `auto` takes the map that predicts left-out validation problems best.
        max_epochs, patience: early stopping on validation problems. Source: 100 and 10 in the paper.
        learning_rate: of Adam. Source: 1e-3 in the paper. weight_decay: of AdamW, 0 = plain Adam.
        batch_size: rows a step.
        seed: of initial weights, order and dropout.
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
        if min(self.max_epochs, self.patience, self.batch_size) < 1:
            raise ConfigError("max_epochs, patience and batch_size must be 1 or more")
        if self.components < 0 or (self.components and not self.use_state):
            raise ConfigError(f"components is {self.components}; expected 0 or more, of a state that is read")


def candidates(config: TrainConfig, role: Author, hidden_size: int) -> dict[Estimator, TrainConfig]:
    """The estimators that `auto` tries, by name.

    `features` are the given ones, or all that the role has. The small ones (`features`, `components`) get
    `SMALL_WIDTHS` where no widths are given, and a little weight decay where there is none.
    """
    features = config.features or features_for(role)
    widths = SMALL_WIDTHS if config.widths is None else config.widths
    small = replace(config, widths=widths, weight_decay=config.weight_decay or SMALL_WEIGHT_DECAY)
    components = config.components or min(SMALL_COMPONENTS, hidden_size)
    return {
        "features": replace(small, estimator="given", features=features, use_state=False, components=0),
        "components": replace(
            small, estimator="given", features=features, use_state=True, components=components
        ),
        "state": replace(config, estimator="given", features=(), use_state=True, components=0),
        "both": replace(config, estimator="given", features=features, use_state=True, components=0),
    }


def pooling_of(collected: Pooling, wanted: ProbePooling | None, role: Author) -> ProbePooling:
    """The pooling of a probe trained on states that were collected in one way.

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
    """Progress of a training: losses are means over rows as often as they were drawn."""

    number: int
    train_loss: float
    validation_loss: float
    best: bool


class Fitted(NamedTuple):
    """A network with the settings it was fitted with and its least loss on the validation problems."""

    config: TrainConfig
    network: ProbeNetwork
    validation_loss: float


def train(
    collection: Collection,
    role: Author,
    judge_name: str,
    config: TrainConfig,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    model_names: Sequence[str] = (),
) -> Probe:
    """Trains the probe of one role on a labelled collection; its card holds its figures on the test problems.

    Deterministic for a seed on one machine and number of threads; leaves torch's global generator as it was.

    Raises:
        ConfigError: a calibration is to be fitted and the library for it is missing, or the collection's states
            cannot be pooled as the configuration wants.
        ProbeError: no labels, or no problem in one of the splits.
    """
    check_choice(config.calibration)
    check_features(config.features, role)
    config = replace(config, pooling=pooling_of(collection.pooling(role), config.pooling, role))
    meanings = read_meanings(collection, judge_name)
    rows = gather(collection, meanings, role, "unbiased")
    trained_on = (
        rows if config.counting == "unbiased" else gather(collection, meanings, role, config.counting)
    )
    training, validation = trained_on.of_split("train"), rows.of_split("validation")
    fitted, losses = fit_best(training, validation, role, config, on_epoch)
    calibration, calibration_losses = calibrate(fitted, validation)
    card = _card(collection.manifest, role, judge_name, fitted.config, trained_on)
    card = replace(card, calibration=calibration.kind, model_names=tuple(model_names))
    if model_names:  # a folder's path on the machine that trained it says nothing elsewhere
        card = replace(card, model_id=model_names[0])
    probe = Probe(card, fitted.network, calibration)
    metrics = _metrics(probe, rows) | {
        **{f"validation_loss_{name}": round(loss, 5) for name, loss in losses.items()},
        **{f"calibration_loss_{name}": round(loss, 5) for name, loss in calibration_losses.items()},
    }
    return Probe(replace(card, metrics=metrics), fitted.network, calibration)


def fit_best(
    training: Examples,
    validation: Examples,
    role: Author,
    config: TrainConfig,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
) -> tuple[Fitted, dict[str, float]]:
    """What `config.estimator` asks for: one network, or the best of the candidates.

    Returns:
        The network, and the validation loss of everything that was tried, by name.
    """
    hidden_size = hidden_size_of(training.states)
    if config.estimator == "given":
        tried: dict[Estimator, TrainConfig] = {"given": config}
    elif config.estimator == "auto":
        tried = candidates(config, role, hidden_size)
    else:
        tried = {config.estimator: candidates(config, role, hidden_size)[config.estimator]}
    fitted = {name: _fit(training, validation, role, one, on_epoch) for name, one in tried.items()}
    best = min(fitted.values(), key=lambda one: one.validation_loss)
    return best, {name: one.validation_loss for name, one in fitted.items()}


def fit(
    training: Examples,
    validation: Examples,
    role: Author,
    config: TrainConfig,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
) -> ProbeNetwork:
    """The network with the least loss on the validation problems' drafted segments.

    Raises:
        ProbeError: one of the two has no rows.
    """
    return _fit(training, validation, role, config, on_epoch).network


def _fit(
    training: Examples,
    validation: Examples,
    role: Author,
    config: TrainConfig,
    on_epoch: Callable[[Epoch], None],
) -> Fitted:
    judged = validation.select(validation.drafted)
    if not len(training) or not len(judged):
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
        judged_inputs = inputs_of(judged, config)
        loss = _descend(network, inputs, training, judged_inputs, judged, config, on_epoch)
    return Fitted(config, network, loss)


def calibrate(fitted: Fitted, validation: Examples) -> tuple[Calibration, dict[str, float]]:
    """The calibration map of a network, from the validation problems' drafted segments; see `choose`."""
    judged = validation.select(validation.drafted)
    return choose(
        logits_of(fitted.network, judged, fitted.config),
        judged.labels,
        judged.weights,
        judged.problem_ids,
        fitted.config.calibration,
    )


def inputs_of(examples: Examples, config: TrainConfig) -> Inputs:
    """The network's inputs `[rows, hidden + features]`: state first, as in `Probe`.

    Raises:
        ConfigError: there is nothing to read.
        ProbeError: attention is asked for and the states are pooled already.
    """
    if not (config.use_state or config.features):
        raise ConfigError("a probe without the state needs features")
    rows = [compute_features(config.features, values) for values in examples.signals]
    features = torch.tensor(rows, dtype=torch.float32).reshape(len(rows), len(config.features))
    return joined(examples.states if config.use_state else None, config.pooling or "mean", features)


@torch.no_grad()
def predict(network: ProbeNetwork, examples: Examples, config: TrainConfig) -> Tensor:
    """Estimates `[rows]`, neither calibrated nor clamped; leaves the network in evaluation mode."""
    return torch.sigmoid(logits_of(network, examples, config))


@torch.no_grad()
def logits_of(network: ProbeNetwork, examples: Examples, config: TrainConfig) -> Tensor:
    """The network's logits `[rows]`; leaves it in evaluation mode."""
    network.eval()
    logits: Tensor = network(inputs_of(examples, config))
    return logits


def _descend(
    network: ProbeNetwork,
    inputs: Inputs,
    training: Examples,
    validation_inputs: Inputs,
    validation: Examples,
    config: TrainConfig,
    on_epoch: Callable[[Epoch], None],
) -> float:
    """Epochs until the validation loss has not fallen for `patience` of them; ends with the best weights.

    Returns:
        The least validation loss.
    """
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
    )
    best_loss, best_weights, waited = float("inf"), copy.deepcopy(network.state_dict()), 0
    for number in range(1, config.max_epochs + 1):
        train_loss = _epoch(network, optimizer, inputs, training, config)
        network.eval()
        with torch.no_grad():
            loss = float(
                loss_of(network(validation_inputs), validation.labels, validation.weights, config.loss)
            )
        waited = 0 if loss < best_loss else waited + 1
        if waited == 0:
            best_loss, best_weights = loss, copy.deepcopy(network.state_dict())
        on_epoch(Epoch(number, train_loss, loss, waited == 0))
        if waited >= config.patience:
            break
    network.load_state_dict(best_weights)
    return best_loss


def _epoch(
    network: ProbeNetwork,
    optimizer: torch.optim.Optimizer,
    inputs: Inputs,
    training: Examples,
    config: TrainConfig,
) -> float:
    """One pass over the training rows in random order; returns their mean loss on the way."""
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
    test, validation = rows.of_split("test"), rows.of_split("validation")
    metrics = card_metrics(probe.probabilities(test.states, test.signals).float(), test)
    on_validation = card_metrics(
        probe.probabilities(validation.states, validation.signals).float(), validation
    )
    names = ("auroc", "r2", "mae")
    return metrics | {f"validation_{name}": on_validation[name] for name in names if name in on_validation}


def _card(
    manifest: Manifest,
    role: Author,
    judge_name: str,
    config: TrainConfig,
    rows: Examples,
) -> ProbeCard:
    model = manifest.model_of(role)
    train_ids: Sequence[str] = [name for name in rows.problem_ids if split_of(name) == "train"]
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
