"""Probes trained again to see what made them good: on fewer problems, with less to read, on shuffled labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from hashlib import blake2b
from math import ceil
from typing import Any, get_args

import torch

from semanticspec.errors import ProbeError
from semanticspec.probes.calibration import Calibration
from semanticspec.probes.card import ProbeCard, ProbePooling
from semanticspec.records import Author
from semanticspec.training.data.examples import Examples, gather
from semanticspec.training.data.storage import Collection
from semanticspec.training.evaluate import estimate_figures
from semanticspec.training.labels.label import read_meanings
from semanticspec.training.metrics import ProblemBootstrap
from semanticspec.training.train import Fitted, Loss, TrainConfig, calibrate, candidates, fit_best, logits_of

SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)
"""Of the training problems, in a learning curve."""

NUM_VARIANTS = 7
"""How many probes the ablations train, poolings aside."""


def num_variants(collection: Collection, role: Author) -> int:
    """How many probes the ablations train: other poolings too where every state was collected."""
    return NUM_VARIANTS + (len(get_args(ProbePooling)) - 1) * (collection.pooling(role) == "none")


def config_of(card: ProbeCard) -> TrainConfig:
    """The settings a probe was trained with, as its card has them; older cards have its shape only.

    Raises:
        ProbeError: the card's settings are no training settings.
    """
    settings = dict(card.training)
    unknown = settings.keys() - {entry.name for entry in fields(TrainConfig)}
    if unknown:
        raise ProbeError(f"the probe's card has unknown training settings: {', '.join(sorted(unknown))}")
    for name in ("widths", "features"):
        if settings.get(name) is not None:
            settings[name] = tuple(settings[name])
    shape = {
        "features": card.features,
        "use_state": card.use_state,
        "components": card.components,
        "pooling": card.pooling,
    }
    return TrainConfig(**{**settings, **shape, "widths": card.widths, "estimator": "given"})


class Retraining:
    """A collection's rows, ready to be trained on and judged in many ways; every result is a table's row."""

    def __init__(
        self, collection: Collection, card: ProbeCard, judge: str = "", on_step: Callable[[str], None] = print
    ) -> None:
        self.card, self.config, self.on_step = card, config_of(card), on_step
        meanings = read_meanings(collection, judge or card.judge)
        rows = gather(collection, meanings, card.role, "unbiased")
        trained_on = rows
        if self.config.counting != "unbiased":
            trained_on = gather(collection, meanings, card.role, self.config.counting)
        self.training, self.validation = trained_on.of_split("train"), rows.of_split("validation")
        test = rows.of_split("test")
        self.test = test.select(test.drafted)
        self.boot = ProblemBootstrap(self.test.problem_ids, self.test.weights)
        self.every_state = collection.pooling(card.role) == "none"
        self.num_contexts = {shard.problem_id: len(shard.contexts) for shard in collection}

    def learning_curve(self) -> list[dict[str, Any]]:
        """Figures of the same probe trained on the first 1/8, 1/4, 1/2 and all training problems.

        Early stopping and calibration always see all validation problems.
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
        """Features, state, both and components; the other loss; and the same probe on shuffled labels.

        Where every state was collected, the state is also pooled in the ways the probe does not.
        """
        config = self.config
        loss: Loss = "mse" if config.loss == "bce" else "bce"
        variants: dict[str, TrainConfig] = {
            f"{name}, {config.loss}": one
            for name, one in candidates(config, self.card.role, self.card.hidden_size).items()
        }
        variants[f"as shipped, {config.loss}"] = config
        variants[f"as shipped, {loss}"] = replace(config, loss=loss)
        for pooling in get_args(ProbePooling) if self.every_state else ():
            if pooling != config.pooling:
                of_state = replace(variants[f"state, {config.loss}"], pooling=pooling)
                variants[f"state, {config.loss}, pooling {pooling}"] = of_state
        rows = []
        for name, one in variants.items():
            self.on_step(name)
            rows.append({"name": name, "figures": self._figures(self.training, one)})
        self.on_step("shuffled labels")
        rows.append({"name": "control: shuffled labels", "figures": self._shuffled()})
        return rows

    def _shuffled(self) -> Mapping[str, Any]:
        generator = torch.Generator().manual_seed(self.config.seed)

        def shuffle(examples: Examples) -> Examples:
            return replace(
                examples, labels=examples.labels[torch.randperm(len(examples), generator=generator)]
            )

        # No calibration map: an isotonic one would make all estimates equal, and AUROC exactly a half.
        config = replace(self.config, calibration="none")
        validation = self.validation.select(self.validation.drafted)
        return self._figures(shuffle(self.training), config, shuffle(validation))

    def _figures(
        self, training: Examples, config: TrainConfig, validation: Examples | None = None
    ) -> Mapping[str, Any]:
        judged_on = self.validation if validation is None else validation
        fitted, _ = fit_best(training, judged_on, self.card.role, config)
        calibration, _ = calibrate(fitted, judged_on)
        estimates = self._estimates(fitted, calibration)
        return estimate_figures(self.boot, estimates, self.test.labels)

    def _estimates(self, fitted: Fitted, calibration: Calibration) -> torch.Tensor:
        estimates = calibration.apply(logits_of(fitted.network, self.test, fitted.config)).double()
        return estimates.clamp(self.card.smallest_probability, 1.0)
