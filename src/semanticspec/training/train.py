"""Trains a probe: early stopping on validation problems, then calibration, then figures on test problems."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from importlib import metadata
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from semanticspec.errors import ConfigError, ProbeError
from semanticspec.probes.calibration import Calibration
from semanticspec.probes.card import DEFAULT_WIDTHS, DraftInputs, ProbeCard, ProbePooling
from semanticspec.probes.features import (
    available_features,
    check_features,
    compute_features,
    features_for,
)
from semanticspec.probes.network import ProbeNetwork
from semanticspec.probes.probe import Probe
from semanticspec.probes.states import Inputs, hidden_size_of, joined
from semanticspec.records import Author, Sampling
from semanticspec.training.calibrate import check_choice, choose
from semanticspec.training.data.examples import Examples, gather, split_of
from semanticspec.training.data.manifest import CollectedModel, Manifest
from semanticspec.training.data.storage import Collection
from semanticspec.training.labels.label import read_labels
from semanticspec.training.metrics import card_metrics
from semanticspec.training.train_config import Estimator, Loss
from semanticspec.training.train_config import TrainConfig as TrainConfig
from semanticspec.training.train_config import candidates as candidates
from semanticspec.training.train_config import pooling_of as pooling_of


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
    draft_pooling = _check_joint(collection, config, role)
    meanings = read_labels(collection, judge_name)
    rows = gather(collection, meanings, role, "unbiased", draft_pooling)
    trained_on = rows
    if config.counting != "unbiased":
        trained_on = gather(collection, meanings, role, config.counting, draft_pooling)
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


def _check_joint(collection: Collection, config: TrainConfig, role: Author) -> ProbePooling | None:
    """Returns the pooling of the draft's states for a joint probe; None for other probes.

    Raises:
        ConfigError: the settings or the collection do not suit a probe that reads the draft's pass.
    """
    if not config.reads_draft:
        return None
    if role != "target":
        raise ConfigError("only the target's probe can be joint: it reads the draft's pass beside its own")
    if config.counting == "paper":
        raise ConfigError(
            "a probe that reads the draft's pass is trained on draft-written segments, which the counting 'paper' "
            "leaves out; use the counting 'unbiased'"
        )
    return pooling_of(collection.pooling("draft"), config.pooling, "draft") if config.joint else None


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
        own = available_features(
            features_for(role, joint=config.joint), drafted_only(training, config).signals
        )
        tried = candidates(config, role, hidden_size_of(training.states), own)
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
    drafted, training = validation.select(validation.drafted), drafted_only(training, config)
    if not len(training) or not len(drafted):
        raise ProbeError(
            "no labelled segments in the training or the validation problems (problems are split "
            "60 / 20 / 20 by their ids); collect on more problems"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        inputs = inputs_of(training, config)
        num_state = hidden_size_of(training.states) if config.use_state else 0
        if config.reads_draft_state and training.draft_states is not None:
            num_state += training.draft_states.shape[1]
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


def drafted_only(examples: Examples, config: TrainConfig) -> Examples:
    """Returns the rows that a probe can be trained on: those by the draft if it reads the draft's pass, else all."""
    return examples.select(examples.drafted) if config.reads_draft else examples


def calibrate(fitted: Fitted, validation: Examples) -> tuple[Calibration, dict[str, float]]:
    """Fits the calibration map of a network on the validation problems' drafted segments; see `choose`."""
    drafted = validation.select(validation.drafted)
    logits = logits_of(fitted.network, drafted, fitted.config)
    return choose(logits, drafted.labels, drafted.weights, drafted.problem_ids, fitted.config.calibration)


def inputs_of(examples: Examples, config: TrainConfig) -> Inputs:
    """Builds the network's inputs `[rows, states + features]`: states first, as in `Probe`.

    Raises:
        ConfigError: neither state nor features are read, or a feature needs what was not collected.
        ProbeError: attention is configured and the states are pooled already.
    """
    if not (config.use_state or config.features):
        raise ConfigError("a probe without the state needs at least one feature")
    rows = [compute_features(config.features, values) for values in examples.signals]
    features = torch.tensor(rows, dtype=torch.float32).reshape(len(rows), len(config.features))
    states, draft_states = (examples.states if config.use_state else None), None
    if config.reads_draft_state:
        assert examples.draft_states is not None, "gathered for every joint probe"
        draft_states = examples.draft_states
    return joined(states, config.pooling or "mean", features, draft_states)


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


def estimates_of(probe: Probe, examples: Examples, *, calibrated: bool = True) -> Tensor:
    """Returns a probe's estimates of all rows, `[rows]`, float64."""
    return probe.probabilities(
        examples.states, examples.signals, examples.draft_states, calibrated=calibrated
    )


def _metrics(probe: Probe, rows: Examples) -> dict[str, float]:
    """Figures on the test problems, and the main ones on the validation problems."""

    def figures(examples: Examples) -> dict[str, float]:
        drafted = examples.select(examples.drafted)  # a joint probe reads no others
        return card_metrics(estimates_of(probe, drafted).float(), drafted)

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
    train_ids = [name for name in drafted_only(rows, config).problem_ids if split_of(name) == "train"]
    draft = None
    if config.reads_draft:
        shared = [field.name for field in fields(DraftInputs) if field.name in CollectedModel.model_fields]
        values = {name: getattr(manifest.draft, name) for name in shared}
        draft = DraftInputs(**values, use_state=config.reads_draft_state)
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
        adapter=model.adapter,
        training=asdict(config),
        num_rows=len(train_ids),
        num_problems=len(set(train_ids)),
        package_version=metadata.version("semanticspec"),
        draft=draft,
    )
