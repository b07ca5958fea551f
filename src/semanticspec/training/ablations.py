"""Retrains a probe to see what makes it good: on fewer problems, with other inputs or losses, on shuffled labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from hashlib import blake2b
from math import ceil
from typing import Any, get_args

import torch

from semanticspec.errors import ProbeError
from semanticspec.probes.card import ProbeCard, ProbePooling
from semanticspec.probes.features import available_features, features_for
from semanticspec.records import Author
from semanticspec.training.data.examples import Examples, gather
from semanticspec.training.data.storage import Collection
from semanticspec.training.evaluate import Figures, estimate_figures
from semanticspec.training.feature_table import validation_auroc
from semanticspec.training.labels.label import read_labels
from semanticspec.training.metrics import ProblemBootstrap
from semanticspec.training.train import calibrate, fit_best, logits_of
from semanticspec.training.train_config import Estimator, Loss, TrainConfig, candidates

SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)
"""Shares of the training problems in a learning curve."""

NUM_VARIANTS = 7
"""Number of probes that the ablations train, joint probes and other poolings not counted."""

JOINT_ESTIMATORS: tuple[Estimator, ...] = ("features", "components", "both")


def num_variants(collection: Collection, role: Author) -> int:
    """Returns how many probes the ablations train: of the target, joint probes too; if all states were collected, other
    poolings too.
    """
    num_joint = len(JOINT_ESTIMATORS) if role == "target" else 0
    return NUM_VARIANTS + num_joint + (len(get_args(ProbePooling)) - 1) * (collection.pooling(role) == "none")


def config_of(card: ProbeCard) -> TrainConfig:
    """Returns the settings that a probe was trained with; older cards lack some, which get their defaults.

    Raises:
        ProbeError: the card has unknown training settings.
    """
    unknown = card.training.keys() - asdict(TrainConfig()).keys()
    if unknown:
        raise ProbeError(
            f"the probe's card has unknown training settings: {', '.join(sorted(unknown))}; train the probe again"
        )
    shape = {
        name: getattr(card, name) for name in ("widths", "features", "use_state", "components", "pooling")
    }
    return TrainConfig(**{**card.training, **shape, "estimator": "given"})


class Retraining:
    """The rows of a collection, ready to train on with many settings; every result is a row of a table."""

    def __init__(
        self, collection: Collection, card: ProbeCard, judge: str = "", on_step: Callable[[str], None] = print
    ) -> None:
        self.card, self.config, self.on_step = card, config_of(card), on_step
        meanings = read_labels(collection, judge or card.judge)
        draft_pooling: ProbePooling | None = None
        if card.role == "target":
            draft_pooling = "last" if self.config.pooling == "last" else "mean"
        rows = gather(collection, meanings, card.role, "unbiased", draft_pooling)
        trained_on = rows
        if self.config.counting != "unbiased":
            trained_on = gather(collection, meanings, card.role, self.config.counting, draft_pooling)
        self.training, self.validation = trained_on.of_split("train"), rows.of_split("validation")
        self.drafted_training = rows.of_split("train").select(rows.of_split("train").drafted)
        test = rows.of_split("test")
        self.test = test.select(test.drafted)
        self.boot = ProblemBootstrap(self.test.problem_ids, self.test.weights)
        self.every_state = collection.pooling(card.role) == "none"
        self.num_contexts = {shard.problem_id: len(shard.contexts) for shard in collection}

    def learning_curve(self) -> list[dict[str, Any]]:
        """Figures of the same probe trained on the first 1/8, 1/4, 1/2 and all training problems.

        Early stopping and calibration always use all validation problems.
        """
        order = sorted(set(self.training.problem_ids), key=lambda name: blake2b(name.encode()).digest())
        points = []
        for size in sorted({ceil(len(order) * share) for share in SHARES}):
            kept = set(order[:size])
            mask = torch.tensor([name in kept for name in self.training.problem_ids], dtype=torch.bool)
            self.on_step(f"{size} problems")
            sizes = {"problems": size, "contexts": sum(self.num_contexts[name] for name in kept)}
            points.append({**sizes, "figures": self._figures(self.training.select(mask), self.config)})
        return points

    def ablations(self) -> list[dict[str, Any]]:
        """Figures of the estimators, of joint probes, of the other loss, of other poolings, and on shuffled labels.

        Other poolings need a collection of all states. `validation_auroc` is there to choose by.
        """
        rows: list[dict[str, Any]] = []
        for name, config in self._variants().items():
            self.on_step(name)
            rows.append({"name": name, "figures": self._figures(self._training_for(config), config)})
        self.on_step("shuffled labels")
        rows.append({"name": "control: shuffled labels", "figures": self._shuffled()})
        return rows

    def _variants(self) -> Mapping[str, TrainConfig]:
        config = self.config
        estimators = self._estimators(
            config if not config.joint else replace(config, joint=False, features=())
        )
        variants = {f"{name}, {config.loss}": one for name, one in estimators.items()}
        if self.card.role == "target":
            joint = self._estimators(self._joint_config())
            variants |= {f"joint {name}, {config.loss}": joint[name] for name in JOINT_ESTIMATORS}
        other_loss: Loss = "mse" if config.loss == "bce" else "bce"
        variants[f"as shipped, {config.loss}"] = config
        variants[f"as shipped, {other_loss}"] = replace(config, loss=other_loss)
        for pooling in get_args(ProbePooling) if self.every_state else ():
            if pooling != config.pooling:
                name = f"state, {config.loss}, pooling {pooling}"
                variants[name] = replace(estimators["state"], pooling=pooling)
        return variants

    def _estimators(self, config: TrainConfig) -> dict[Estimator, TrainConfig]:
        rows = self._training_for(config).signals
        features = available_features(features_for(self.card.role, joint=config.joint), rows)
        return candidates(config, self.card.role, self.card.hidden_size, features)

    def _training_for(self, config: TrainConfig) -> Examples:
        return self.drafted_training if config.reads_draft else self.training

    def _joint_config(self) -> TrainConfig:
        """The settings of the joint probes: its own if the probe is one, else with all features of both passes.

        The counting is `unbiased`, because they are trained on draft-written segments.
        """
        if self.config.joint:
            return self.config
        pooling: ProbePooling = "last" if self.config.pooling == "last" else "mean"
        return replace(self.config, joint=True, features=(), pooling=pooling, counting="unbiased")

    def _shuffled(self) -> Figures:
        generator = torch.Generator().manual_seed(self.config.seed)

        def shuffle(examples: Examples) -> Examples:
            order = torch.randperm(len(examples), generator=generator)
            return replace(examples, labels=examples.labels[order])

        # Without calibration: an isotonic map would make all estimates equal, and AUROC exactly 0.5.
        config = replace(self.config, calibration="none")
        training = shuffle(self.training)
        validation = shuffle(self.validation.select(self.validation.drafted))
        return self._figures(training, config, validation)

    def _figures(
        self, training: Examples, config: TrainConfig, validation: Examples | None = None
    ) -> Figures:
        validation = self.validation if validation is None else validation
        fitted, _ = fit_best(training, validation, self.card.role, config)
        calibration, _ = calibrate(fitted, validation)
        drafted = validation.select(validation.drafted)
        on_validation = validation_auroc(logits_of(fitted.network, drafted, fitted.config), drafted)
        estimates = calibration.apply(logits_of(fitted.network, self.test, fitted.config)).double()
        estimates = estimates.clamp(self.card.smallest_probability, 1.0)
        return {
            "validation_auroc": on_validation,
            **estimate_figures(self.boot, estimates, self.test.labels),
        }
