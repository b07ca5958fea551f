"""The map that makes a probe's estimates mean what they say: fitted after training, stored with the probe.

Two kinds are tried against none: `platt`, a straight line between logits, and `isotonic`, any rising curve.
scikit-learn fits them; applying one needs torch only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from semanticspec.errors import ConfigError, ProbeError
from semanticspec.install_hints import install_hint

Kind = Literal["none", "platt", "isotonic"]
CalibrationChoice = Literal["auto", "none", "platt", "isotonic"]
NUM_FOLDS = 5
_SMALLEST = 1e-4


@dataclass(frozen=True)
class Calibration:
    """A rising map from logits to probabilities.

    Attributes:
        kind: see the module.
        values: float32. `platt`: `[2]`, slope and offset of the logit. `isotonic`: `[2, points]`, logits and
            probabilities between which straight lines run; level outside. `none`: `[0]`.
    """

    kind: Kind
    values: Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.values.shape)
        fits = {
            "none": shape == (0,),
            "platt": shape == (2,),
            "isotonic": len(shape) == 2 and shape[0] == 2 and shape[1] >= 1,
        }
        if self.kind not in fits or not fits[self.kind] or not bool(torch.isfinite(self.values).all()):
            raise ProbeError(f"a calibration of kind {self.kind!r} cannot have values of shape {shape}")

    def apply(self, logits: Tensor) -> Tensor:
        """Probabilities `[rows]` of logits `[rows]`, on the logits' device."""
        values = self.values.to(logits.device)
        if self.kind == "none":
            return torch.sigmoid(logits)
        if self.kind == "platt":
            return torch.sigmoid(values[0] * logits + values[1])
        return _interpolate(logits, values[0], values[1])


NO_CALIBRATION = Calibration("none", torch.zeros(0))


def check_choice(choice: str) -> None:
    """Refuses an unknown kind, and a fitted one without the library that fits it.

    Raises:
        ConfigError: as said.
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
    """The calibration map for some rows; for `auto` the kind that predicts left-out problems best.

    Args:
        logits, labels, weights: `[rows]`: a network's logits, soft labels, how often each row was drawn.
        groups: problem of every row; folds never cut one.

    Returns:
        The map, fitted on all rows, and for `auto` the cross-validated cross-entropy (nats) of every kind.
        With fewer than two problems nothing can be compared and `auto` gives `none`.
    """
    if choice != "auto":
        return FITTERS[choice](logits, labels, weights), {}
    folds = _folds(groups)
    if folds is None:
        return NO_CALIBRATION, {}
    losses: dict[str, float] = dict.fromkeys(FITTERS, 0.0)
    for kind, fitter in FITTERS.items():
        for number in sorted(set(folds.tolist())):
            inside = folds == number
            fitted = fitter(logits[~inside], labels[~inside], weights[~inside])
            estimates = fitted.apply(logits[inside]).clamp(_SMALLEST, 1 - _SMALLEST)
            loss = F.binary_cross_entropy(estimates, labels[inside], weights[inside], reduction="sum")
            losses[kind] += float(loss / weights.sum())
    best = min(FITTERS, key=lambda kind: losses[kind])
    return FITTERS[best](logits, labels, weights), losses


def _fit_none(logits: Tensor, labels: Tensor, weights: Tensor) -> Calibration:  # noqa: ARG001
    return NO_CALIBRATION


def _fit_platt(logits: Tensor, labels: Tensor, weights: Tensor) -> Calibration:
    """Logistic regression of the soft labels on the logit: every row counts as yes by its label, else as no.

    A slope that is not positive (the network has learnt nothing) would turn the order round: then no map.
    """
    from sklearn.linear_model import LogisticRegression

    inputs = torch.cat([logits, logits])[:, None].double().numpy()
    answers = torch.cat([torch.ones(len(logits)), torch.zeros(len(logits))]).numpy()
    counted = torch.cat([weights * labels, weights * (1 - labels)]).double()
    if not bool((counted[: len(logits)] > 0).any() and (counted[len(logits) :] > 0).any()):
        return NO_CALIBRATION
    fitted = LogisticRegression(C=1e4).fit(inputs, answers, sample_weight=counted.numpy())
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
    number = {name: place % min(NUM_FOLDS, len(names)) for place, name in enumerate(names)}
    return torch.tensor([number[name] for name in groups])


def _interpolate(places: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Values at `places` of the line through the points (x, y), x rising; level outside."""
    if len(x) == 1:
        return y.expand_as(places).clone()
    right = torch.searchsorted(x, places.contiguous()).clamp(1, len(x) - 1)
    left = right - 1
    share = ((places - x[left]) / (x[right] - x[left]).clamp_min(1e-12)).clamp(0, 1)
    return y[left] + share * (y[right] - y[left])
