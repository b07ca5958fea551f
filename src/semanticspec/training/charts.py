"""The figures of a probe's report, drawn by matplotlib: each for light and for dark pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from semanticspec.output.pages import Painter, Theme, draw
from semanticspec.training.evaluate import Evaluation, JudgedRows
from semanticspec.training.metrics import POSITIVE


def draw_all(evaluation: Evaluation, rows: JudgedRows) -> dict[str, dict[Theme, bytes]]:
    """All figures as PNG files, by name and theme. The learning curve is left out if it was not asked for."""
    painters: dict[str, Painter] = {
        "reliability": lambda axes, colours: _reliability(axes, colours, evaluation),
        "predicted": lambda axes, colours: _predicted(axes, colours, rows),
        "roc": lambda axes, colours: _roc(axes, colours, evaluation, rows),
    }
    if evaluation.learning_curve:
        painters["learning_curve"] = lambda axes, colours: _learning_curve(axes, colours, evaluation)
    return {name: draw(painter) for name, painter in painters.items()}


def _reliability(axes: Any, colours: Mapping[str, str], evaluation: Evaluation) -> None:
    """Mean label against mean estimate in ten bins; the area of a point is the bin's share of segments."""
    axes.plot([0, 1], [0, 1], color=colours["grid"], linewidth=1.2)
    kinds = [("before", "second")] if evaluation.probe["calibration"] != "none" else []
    for kind, colour in (*kinds, ("after", "main")):
        bins = evaluation.reliability[kind]
        total = sum(weight for weight, _, _ in bins)
        estimates, labels = [estimate for _, estimate, _ in bins], [label for _, _, label in bins]
        sizes = [12 + 500 * weight / total for weight, _, _ in bins]
        name = f"{kind} calibration" if kinds else "estimates (no map)"
        axes.plot(estimates, labels, color=colours[colour], linewidth=1.2, label=name)
        axes.scatter(estimates, labels, s=sizes, color=colours[colour], alpha=0.6, linewidth=0)
    axes.set(title="Reliability", xlabel="estimate", ylabel="label", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))


def _predicted(axes: Any, colours: Mapping[str, str], rows: JudgedRows) -> None:
    """Estimate and label of every row, labels spread a little so that equal ones can be seen."""
    generator = torch.Generator().manual_seed(0)
    spread = (torch.rand(len(rows.after), generator=generator) - 0.5) * 0.03
    labels = rows.examples.labels + spread
    sizes = 6 + 4 * rows.examples.weights
    axes.plot([0, 1], [0, 1], color=colours["grid"], linewidth=1.2)
    axes.scatter(
        rows.after.tolist(), labels.tolist(), s=sizes.tolist(), color=colours["main"], alpha=0.35, linewidth=0
    )
    axes.set(title="Predicted against label", xlabel="estimate", ylabel="label (jittered)")
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.05, 1.05))


def _roc(axes: Any, colours: Mapping[str, str], evaluation: Evaluation, rows: JudgedRows) -> None:
    """The probe's ROC curve among those of the cheap signals."""
    axes.plot([0, 1], [0, 1], color=colours["grid"], linewidth=1.2)
    weights = rows.examples.weights
    styles = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 3)))
    for place, (name, values) in enumerate(rows.signals.items()):
        area = evaluation.signals[name]["auroc"].value
        x, y = roc_curve(values, rows.positive, weights)
        style = styles[place % len(styles)]
        axes.plot(
            x,
            y,
            color=colours["second"],
            alpha=0.75,
            linewidth=1,
            linestyle=style,
            label=f"{name} {area:.3f}",
        )
    x, y = roc_curve(rows.after, rows.positive, weights)
    axes.plot(x, y, color=colours["main"], linewidth=2, label=f"probe {evaluation.after['auroc'].value:.3f}")
    axes.set(title=f"ROC: label of at least {POSITIVE}", xlabel="false positives", ylabel="true positives")


def _learning_curve(axes: Any, colours: Mapping[str, str], evaluation: Evaluation) -> None:
    """AUROC and its interval by training contexts, beside the best cheap signal."""
    points = evaluation.learning_curve
    contexts = [point["contexts"] for point in points]
    figures = [point["figures"]["auroc"] for point in points]
    values = [figure.value for figure in figures]
    axes.fill_between(
        contexts,
        [figure.low for figure in figures],
        [figure.high for figure in figures],
        color=colours["main"],
        alpha=0.15,
        linewidth=0,
    )
    axes.plot(contexts, values, color=colours["main"], marker="o", label="probe, 95 % interval")
    signal = evaluation.signals[evaluation.best_signal]["auroc"].value
    axes.axhline(
        signal, color=colours["second"], linestyle="--", linewidth=1.2, label=f"{evaluation.best_signal}"
    )
    axes.set(title="Learning curve", xlabel="training contexts", ylabel="AUROC on test problems")
    if len(contexts) > 1 and contexts[-1] / max(1, contexts[0]) >= 4:
        axes.set_xscale("log", base=2)
        axes.set_xticks(contexts, [str(value) for value in contexts])


def roc_curve(scores: Tensor, positive: Tensor, weights: Tensor) -> tuple[list[float], list[float]]:
    """Shares of the negatives and of the positives at or above every score, by scikit-learn."""
    from sklearn.metrics import roc_curve as curve

    if bool(positive.all()) or not bool(positive.any()):
        return [0.0, 1.0], [0.0, 1.0]
    x, y, _ = curve(positive.numpy(), scores.double().numpy(), sample_weight=weights.numpy())
    return [float(value) for value in x], [float(value) for value in y]
