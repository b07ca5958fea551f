"""Third stage: trains a probe, keeps what did best on validation problems, measures it on others."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from semanticspec.errors import ConfigError, ProbeError
from semanticspec.probes.card import DEFAULT_WIDTHS, Counting, ProbeCard
from semanticspec.probes.evaluate import evaluate
from semanticspec.probes.examples import Examples, gather, split_of
from semanticspec.probes.features import check_features, compute_features
from semanticspec.probes.label import read_meanings
from semanticspec.probes.network import ProbeNetwork
from semanticspec.probes.probe import Probe
from semanticspec.probes.storage import Collection
from semanticspec.records import Author, Sampling

Loss = Literal["bce", "mse"]


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How a probe is trained.

    Attributes:
        widths: of the hidden layers; None = the paper's for the role.
        features: names out of `FEATURES`, beside the state. use_state: False leaves the state out.
        loss: `bce`, cross-entropy with soft labels, or `mse` (source: the paper's).
        counting: of the labels trained on; figures are always taken on `unbiased` ones.
        max_epochs, patience: early stopping on validation problems. Source: 100 and 10 in the paper.
        learning_rate: of Adam. Source: 1e-3 in the paper. weight_decay: of AdamW, 0 = plain Adam.
        batch_size: rows a step.
        seed: of initial weights, order and dropout.
    """

    widths: tuple[int, ...] | None = None
    features: tuple[str, ...] = ()
    use_state: bool = True
    loss: Loss = "bce"
    counting: Counting = "unbiased"
    max_epochs: int = 100
    patience: int = 10
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    batch_size: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        check_features(self.features)
        if self.loss not in ("bce", "mse") or self.counting not in ("unbiased", "paper"):
            raise ConfigError(
                f"loss {self.loss!r}, counting {self.counting!r}; expected bce|mse, unbiased|paper"
            )
        if min(self.max_epochs, self.patience, self.batch_size) < 1:
            raise ConfigError("max_epochs, patience and batch_size must be 1 or more")


class Epoch(NamedTuple):
    """Progress of a training: losses are means over rows as often as they were drawn."""

    number: int
    train_loss: float
    validation_loss: float
    best: bool


def train(
    collection: Collection,
    role: Author,
    judge_name: str,
    config: TrainConfig,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
) -> Probe:
    """Trains the probe of one role on a labelled collection; its card holds its figures on the test problems.

    Deterministic for a seed on one machine and number of threads; leaves torch's global generator as it was.

    Raises:
        ProbeError: no labels, or no problem in one of the splits.
    """
    meanings = read_meanings(collection, judge_name)
    rows = gather(collection, meanings, role, "unbiased")
    trained_on = (
        rows if config.counting == "unbiased" else gather(collection, meanings, role, config.counting)
    )
    network = fit(trained_on.of_split("train"), rows.of_split("validation"), role, config, on_epoch)
    test, validation = rows.of_split("test"), rows.of_split("validation")
    metrics = evaluate(predict(network, test, config), test)
    on_validation = evaluate(predict(network, validation, config), validation)
    metrics |= {
        f"validation_{name}": on_validation[name] for name in ("auroc", "r2", "mae") if name in on_validation
    }
    return Probe(_card(collection.manifest, role, judge_name, config, trained_on, metrics), network)


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
    judged = validation.select(validation.drafted)
    if not len(training) or not len(judged):
        raise ProbeError(
            "no labelled segments in the training or the validation problems (problems are split "
            "60 / 20 / 20 by their ids); collect on more problems"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        inputs = inputs_of(training, config)
        network = ProbeNetwork(inputs.shape[1], config.widths or DEFAULT_WIDTHS[role])
        network.fit_scaler(inputs)
        _descend(network, inputs, training, inputs_of(judged, config), judged, config, on_epoch)
    return network


def inputs_of(examples: Examples, config: TrainConfig) -> Tensor:
    """The network's inputs `[rows, hidden + features]`: state first, as in `Probe`."""
    parts = [examples.states] if config.use_state else []
    if config.features:
        parts.append(torch.tensor([compute_features(config.features, values) for values in examples.signals]))
    if not parts:
        raise ConfigError("a probe without the state needs features")
    return torch.cat(parts, dim=1)


@torch.no_grad()
def predict(network: ProbeNetwork, examples: Examples, config: TrainConfig) -> Tensor:
    """Estimates `[rows]`, not clamped; leaves the network in evaluation mode."""
    network.eval()
    return torch.sigmoid(network(inputs_of(examples, config)))


def _descend(
    network: ProbeNetwork,
    inputs: Tensor,
    training: Examples,
    validation_inputs: Tensor,
    validation: Examples,
    config: TrainConfig,
    on_epoch: Callable[[Epoch], None],
) -> None:
    """Epochs until the validation loss has not fallen for `patience` of them; ends with the best weights."""
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


def _epoch(
    network: ProbeNetwork,
    optimizer: torch.optim.Optimizer,
    inputs: Tensor,
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


def _card(
    manifest: Mapping[str, Any],
    role: Author,
    judge_name: str,
    config: TrainConfig,
    rows: Examples,
    metrics: dict[str, float],
) -> ProbeCard:
    model = manifest[role]
    train_ids: Sequence[str] = [name for name in rows.problem_ids if split_of(name) == "train"]
    return ProbeCard(
        role=role,
        model_id=model["model_id"],
        revision=model["revision"],
        hidden_size=model["hidden_size"],
        num_layers=model["num_layers"],
        norm_state=model["norm_state"],
        fingerprint=model["fingerprint"],
        sampling=Sampling(**manifest["config"]["sampling"]),
        num_samples=manifest["config"]["num_samples"],
        judge=judge_name,
        counting=config.counting,
        widths=config.widths or DEFAULT_WIDTHS[role],
        features=config.features,
        use_state=config.use_state,
        num_rows=len(train_ids),
        num_problems=len(set(train_ids)),
        metrics=metrics,
        package_version=metadata.version("semanticspec"),
    )
