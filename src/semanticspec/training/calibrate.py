"""Fits the calibration map of a probe with scikit-learn: `platt`, `isotonic`, or none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from semanticspec.errors import ConfigError
from semanticspec.install_hints import install_hint
from semanticspec.probes.calibration import NO_CALIBRATION, Calibration, Kind

CalibrationChoice = Literal["auto", "none", "platt", "isotonic"]
NUM_FOLDS = 5
_SMALLEST = 1e-4


def check_choice(choice: str) -> None:
    """Checks that a calibration is known and can be fitted.

    Raises:
        ConfigError: the kind is unknown, or scikit-learn is missing.
    """
    if choice not in get_args(CalibrationChoice):
        raise ConfigError(
            f"calibration is {choice!r}; expected one of {', '.join(get_args(CalibrationChoice))}"
        )
    if choice != "none" and find_spec("sklearn") is None:
        raise ConfigError(
            f"fitting a calibration needs scikit-learn: {install_hint('probes')}; or choose none"
        )


def choose(
    logits: Tensor, labels: Tensor, weights: Tensor, groups: Sequence[str], choice: CalibrationChoice
) -> tuple[Calibration, dict[str, float]]:
    """Fits a calibration map; `auto` takes the kind with the lowest cross-validated loss.

    Args:
        logits, labels, weights: `[rows]`: a network's logits, soft labels, how often each row was drawn.
        groups: problem of every row; a fold holds whole problems.

    Returns:
        The map, fitted on all rows, and for `auto` the cross-validated cross-entropy (nats) of every kind. With fewer
        than two problems `auto` gives `none`.
    """
    if choice != "auto":
        return FITTERS[choice](logits, labels, weights), {}
    folds = _folds(groups)
    if folds is None:
        return NO_CALIBRATION, {}
    losses: dict[str, float] = dict.fromkeys(FITTERS, 0.0)
    for kind, fitter in FITTERS.items():
        for fold in range(int(folds.max()) + 1):
            held_out = folds == fold
            fitted = fitter(logits[~held_out], labels[~held_out], weights[~held_out])
            estimates = fitted.apply(logits[held_out]).clamp(_SMALLEST, 1 - _SMALLEST)
            loss = F.binary_cross_entropy(estimates, labels[held_out], weights[held_out], reduction="sum")
            losses[kind] += float(loss / weights.sum())
    best = min(FITTERS, key=lambda kind: losses[kind])
    return FITTERS[best](logits, labels, weights), losses


def _fit_none(logits: Tensor, labels: Tensor, weights: Tensor) -> Calibration:  # noqa: ARG001
    return NO_CALIBRATION


def _fit_platt(logits: Tensor, labels: Tensor, weights: Tensor) -> Calibration:
    """Logistic regression on the logit. A soft label counts as a positive and a negative row, weighted by the label.

    Returns no map if the slope is not positive, which would reverse the order of the estimates.
    """
    from sklearn.linear_model import LogisticRegression

    positive, negative = (weights * labels).double(), (weights * (1 - labels)).double()
    if not bool((positive > 0).any() and (negative > 0).any()):
        return NO_CALIBRATION
    fitted = LogisticRegression(C=1e4).fit(
        torch.cat([logits, logits])[:, None].double().numpy(),
        torch.cat([torch.ones(len(logits)), torch.zeros(len(logits))]).numpy(),
        sample_weight=torch.cat([positive, negative]).numpy(),
    )
    slope, offset = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
    return Calibration("platt", torch.tensor([slope, offset])) if slope > 0 else NO_CALIBRATION


def _fit_isotonic(logits: Tensor, labels: Tensor, weights: Tensor) -> Calibration:
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip")
    model.fit(logits.double().numpy(), labels.double().numpy(), sample_weight=weights.double().numpy())
    points = [torch.from_numpy(values).float() for values in (model.X_thresholds_, model.y_thresholds_)]
    return Calibration("isotonic", torch.stack(points))


FITTERS: dict[Kind, Callable[[Tensor, Tensor, Tensor], Calibration]] = {
    "none": _fit_none,
    "platt": _fit_platt,
    "isotonic": _fit_isotonic,
}


def _folds(groups: Sequence[str]) -> Tensor | None:
    """The fold of every row, `[rows]`; None with a single problem."""
    names = sorted(set(groups))
    if len(names) < 2:
        return None
    fold = {name: place % min(NUM_FOLDS, len(names)) for place, name in enumerate(names)}
    return torch.tensor([fold[name] for name in groups])
