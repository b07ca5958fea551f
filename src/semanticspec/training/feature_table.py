"""Every feature by itself as a ranking of the test segments; its direction is chosen on validation problems."""

from __future__ import annotations

from typing import Any

import torch

from semanticspec.probes.features import features_for
from semanticspec.records import Author
from semanticspec.training.data.examples import Examples
from semanticspec.training.metrics import (
    POSITIVE,
    Interval,
    ProblemBootstrap,
    area_under_roc,
    point_estimate,
    signal_values,
)


def feature_table(
    boot: ProblemBootstrap, validation: Examples, test: Examples, role: Author
) -> list[dict[str, Any]]:
    """Ranks the features by their AUROC on the validation problems, the best first.

    Args:
        boot: resamples the rows of `test`.
        validation, test: draft-written segments.

    Returns:
        A row per feature that both sets have: `name`, `higher_is_better` (chosen on the validation problems) and
        `figures`: `validation_auroc` and `auroc`, the latter on the test problems with its interval.
    """
    names = features_for(role, joint=role == "target")
    chosen = signal_values(names, validation.signals)
    positive = validation.labels >= POSITIVE
    rows = []
    for name, values in signal_values(tuple(chosen), test.signals).items():
        auroc = point_estimate(area_under_roc, chosen[name], positive, validation.weights)
        higher = not auroc < 0.5
        sign = 1.0 if higher else -1.0
        figures = {
            "validation_auroc": without_interval(auroc if higher else 1 - auroc),
            "auroc": boot.interval(area_under_roc, sign * values, test.labels >= POSITIVE),
        }
        rows.append({"name": name, "higher_is_better": higher, "figures": figures})
    return sorted(rows, key=_validation_auroc, reverse=True)


def without_interval(value: float) -> Interval:
    """Returns a figure that has no interval."""
    return Interval(value, float("nan"), float("nan"))


def _validation_auroc(row: dict[str, Any]) -> float:
    value: float = row["figures"]["validation_auroc"].value
    return value if value == value else -1.0


def validation_auroc(scores: torch.Tensor, validation: Examples) -> Interval:
    """AUROC of scores `[rows]` on validation problems."""
    positive = validation.labels >= POSITIVE
    return without_interval(point_estimate(area_under_roc, scores, positive, validation.weights))
