"""Fitting of calibration maps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from semanticspec.errors import ConfigError, ProbeError
from semanticspec.probes.calibration import NO_CALIBRATION, Calibration
from semanticspec.training.calibrate import choose
from semanticspec.training.train import (
    TrainConfig,
    calibrate,
    fit_best,
)
from tests.support.collecting import (
    synthetic,
)


def miscalibrated(slope: float, offset: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[str]]:
    logits = torch.randn(2000, generator=torch.Generator().manual_seed(0)) * 2
    labels = torch.sigmoid(slope * logits + offset)
    return logits, labels, torch.ones(2000), [f"problem {i % 50}" for i in range(2000)]


def test_a_line_between_logits_is_found_again() -> None:
    logits, labels, weights, groups = miscalibrated(0.5, 1.0)
    fitted, losses = choose(logits, labels, weights, groups, "auto")
    assert fitted.kind == "platt"
    assert fitted.values.tolist() == pytest.approx([0.5, 1.0], abs=0.02)
    assert losses["platt"] < losses["none"]


def test_a_curve_is_found_again() -> None:
    logits, _, weights, groups = miscalibrated(1.0, 0.0)
    labels = 0.1 + 0.3 * (logits > -1).float() + 0.5 * (logits > 1).float()
    fitted, losses = choose(logits, labels, weights, groups, "auto")
    assert fitted.kind == "isotonic"
    assert losses["isotonic"] == min(losses.values())
    places = torch.tensor([-50.0, -2.0, 0.0, 2.0, 50.0])
    assert fitted.apply(places).tolist() == pytest.approx([0.1, 0.1, 0.4, 0.9, 0.9], abs=1e-3)
    rising = fitted.apply(torch.linspace(-6, 6, 500))
    assert (rising.diff() >= -1e-6).all()


def test_what_cannot_be_calibrated_is_left_alone() -> None:
    logits, labels, weights, _ = miscalibrated(1.0, 0.0)
    assert choose(logits, labels, weights, ["one"] * 2000, "auto") == (NO_CALIBRATION, {})
    assert choose(logits, torch.zeros(2000), weights, ["one"] * 2000, "platt")[0].kind == "none"
    assert choose(logits, 1 - labels, weights, ["one"] * 2000, "platt")[0].kind == "none"
    with pytest.raises(ProbeError, match="platt"):
        Calibration("platt", torch.zeros(3))
    with pytest.raises(ConfigError, match="calibration is 'magic'"):
        TrainConfig(calibration="magic")  # type: ignore[arg-type]


def test_calibration_is_fitted_on_drafted_rows_of_validation_problems() -> None:
    examples = synthetic(60)
    config = TrainConfig(widths=(8,), max_epochs=5, calibration="platt")
    fitted, _ = fit_best(examples.of_split("train"), examples.of_split("validation"), "target", config)
    validation = examples.of_split("validation")
    before, _ = calibrate(fitted, validation)
    labels = torch.where(validation.drafted, validation.labels, 1 - validation.labels)
    after, _ = calibrate(fitted, replace(validation, labels=labels))
    assert torch.equal(before.values, after.values)
