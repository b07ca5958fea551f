"""The figures of a probe's report, drawn by matplotlib for light and dark pages."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import isfinite
from typing import Any

import torch
from torch import Tensor

from semanticspec.output.pages import Painter, Theme, draw
from semanticspec.training.evaluate import Evaluation, JudgedRows
from semanticspec.training.metrics import POSITIVE, Interval

Colours = Mapping[str, str]
_LINE_STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 3)))


def draw_all(evaluation: Evaluation, rows: JudgedRows) -> dict[str, dict[Theme, bytes]]:
    """Draws all figures as PNG, by name and theme, without those of `undrawn`."""
    painters: dict[str, Painter] = {
        "reliability": partial(_reliability, evaluation),
        "predicted": partial(_predicted, rows),
        "roc": partial(_roc, evaluation, rows),
    }
    if evaluation.learning_curve:
        painters["learning_curve"] = partial(_learning_curve, evaluation)
    missing = undrawn(evaluation, rows)
    return {name: draw(painter) for name, painter in painters.items() if name not in missing}


def undrawn(evaluation: Evaluation, rows: JudgedRows) -> dict[str, str]:
    """Returns the figures that these problems are too few for, and why."""
    reasons = {}
    if bool(rows.positive.all()) or not bool(rows.positive.any()):
        reasons["roc"] = f"all labels are on one side of {POSITIVE}"
    if evaluation.learning_curve and len(_curve_points(evaluation)) < 2:
        reasons["learning_curve"] = "fewer than two sizes of training data give an AUROC"
    return reasons


def _curve_points(evaluation: Evaluation) -> list[tuple[int, Interval]]:
    """Returns the training contexts and the AUROC of those points of the learning curve that have one."""
    points = [(point["contexts"], point["figures"]["auroc"]) for point in evaluation.learning_curve]
    return [(contexts, auroc) for contexts, auroc in points if contexts and all(map(isfinite, auroc))]


def _reliability(evaluation: Evaluation, axes: Any, colours: Colours) -> None:
    """Mean label against mean estimate in ten bins; the area of a point is the bin's share of segments."""
    _diagonal(axes, colours)
    calibrated = evaluation.probe["calibration"] != "none"
    kinds = (("before", "second"), ("after", "main")) if calibrated else (("after", "main"),)
    for kind, colour in kinds:
        weights, estimates, labels = zip(*evaluation.reliability[kind], strict=True)
        name = f"{kind} calibration" if calibrated else "estimates (no map)"
        sizes = [12 + 500 * weight / sum(weights) for weight in weights]
        axes.plot(estimates, labels, color=colours[colour], linewidth=1.2, label=name)
        axes.scatter(estimates, labels, s=sizes, color=colours[colour], alpha=0.6, linewidth=0)
    axes.set(title="Reliability", xlabel="estimate", ylabel="label", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))


def _predicted(rows: JudgedRows, axes: Any, colours: Colours) -> None:
    """Estimate against label of every row; labels are jittered so that equal ones can be told apart."""
    _diagonal(axes, colours)
    generator = torch.Generator().manual_seed(0)
    labels = rows.examples.labels + (torch.rand(len(rows.after), generator=generator) - 0.5) * 0.03
    sizes = (6 + 4 * rows.examples.weights).tolist()
    axes.scatter(
        rows.after.tolist(), labels.tolist(), s=sizes, color=colours["main"], alpha=0.35, linewidth=0
    )
    axes.set(title="Predicted against label", xlabel="estimate", ylabel="label (jittered)")
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.05, 1.05))


def _roc(evaluation: Evaluation, rows: JudgedRows, axes: Any, colours: Colours) -> None:
    """The ROC curves of the probe and of the cheap signals."""
    _diagonal(axes, colours)
    for place, (name, values) in enumerate(rows.signals.items()):
        label = f"{name} {evaluation.signals[name]['auroc'].value:.3f}"
        style = {"linestyle": _LINE_STYLES[place % len(_LINE_STYLES)], "linewidth": 1, "alpha": 0.75}
        axes.plot(*roc_points(values, rows), color=colours["second"], label=label, **style)
    label = f"probe {evaluation.after['auroc'].value:.3f}"
    axes.plot(*roc_points(rows.after, rows), color=colours["main"], linewidth=2, label=label)
    axes.set(title=f"ROC: label of at least {POSITIVE}", xlabel="false positives", ylabel="true positives")


def _learning_curve(evaluation: Evaluation, axes: Any, colours: Colours) -> None:
    """AUROC and its interval by number of training contexts, and the best cheap signal."""
    contexts = [contexts for contexts, _ in _curve_points(evaluation)]
    values, low, high = zip(*(auroc for _, auroc in _curve_points(evaluation)), strict=True)
    axes.fill_between(contexts, low, high, color=colours["main"], alpha=0.15, linewidth=0)
    axes.plot(contexts, values, color=colours["main"], marker="o", label="probe, 95 % interval")
    best = evaluation.best_signal
    signal = evaluation.signals[best]["auroc"].value
    if isfinite(signal):
        axes.axhline(signal, color=colours["second"], linestyle="--", linewidth=1.2, label=best)
    axes.set(title="Learning curve", xlabel="training contexts", ylabel="AUROC on test problems")
    if contexts[-1] / contexts[0] >= 4:
        axes.set_xscale("log", base=2)
        axes.set_xticks(contexts, [str(value) for value in contexts])


def _diagonal(axes: Any, colours: Colours) -> None:
    axes.plot([0, 1], [0, 1], color=colours["grid"], linewidth=1.2)


def roc_points(scores: Tensor, rows: JudgedRows) -> tuple[Any, Any]:
    """False and true positive rates at every threshold; the diagonal if all rows are of one class."""
    from sklearn.metrics import roc_curve

    positive = rows.positive
    if bool(positive.all()) or not bool(positive.any()):
        return [0.0, 1.0], [0.0, 1.0]
    weights = rows.examples.weights.numpy()
    false_rate, true_rate, _ = roc_curve(positive.numpy(), scores.double().numpy(), sample_weight=weights)
    return false_rate, true_rate
