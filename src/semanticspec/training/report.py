"""The report of an evaluation: `evaluation.json`, figures as PNG, and a self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from semanticspec.output.console import TableSection
from semanticspec.output.files import write_atomically
from semanticspec.output.pages import Theme, Tile, render_page
from semanticspec.training.charts import draw_all, undrawn
from semanticspec.training.data.storage import Collection
from semanticspec.training.evaluate import Evaluation, Figures, JudgedRows
from semanticspec.training.labels.outcomes import OUTCOME
from semanticspec.training.metrics import Interval

REPORT_FILE = "report.html"
RANKING = ("auroc", "average_precision")
ERRORS = ("r2", "mae", "spearman", "calibration_error")
HEADINGS = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "r2": "R²",
    "mae": "mean abs. error",
    "spearman": "Spearman",
    "calibration_error": "calibration error",
    "validation_auroc": "AUROC on validation",
}
ALL_FIGURES = (*RANKING, *ERRORS)
NUM_LISTED = 10
"""Features that a terminal shows; the report has all."""

_BY_MEANING = (
    "Label: share of the model's own samples in that context with the same meaning, according to the judge named "
    "above."
)
_BY_OUTCOME = "Label: share of the target's continuations from after the segment that reach the right answer."
_METHOD = (
    "Rows: draft-written segments of the test problems, which were not used for training, early stopping or "
    "calibration; each segment is weighted by how often it was drawn. {labels} AUROC and average precision: separating "
    "labels of at least 0.5 from the others. Brackets: 95 % intervals from 1000 bootstrap resamples of problems. The "
    "best cheap signal is chosen on these same rows, which favours the signal. Calibration error: mean distance "
    "between estimate and label over ten equal-width bins. Ceiling: labels from one half of the model's samples "
    "predicting labels from the other half."
)


def method_of(judge: str) -> str:
    """Returns how a report's figures are computed.

    Args:
        judge: whose labels are used, or `outcome`.
    """
    return _METHOD.format(labels=_BY_OUTCOME if judge == OUTCOME else _BY_MEANING)


def write_report(evaluation: Evaluation, rows: JudgedRows, folder: Path) -> Path:
    """Writes `evaluation.json`, the figures (light theme) as PNG files and `report.html` into a folder.

    Returns:
        Path of the page.
    """
    evaluation.save(folder)
    pictures = draw_all(evaluation, rows)
    for name, themes in pictures.items():
        write_atomically(folder / f"{name}.png", themes["light"])
    for name in undrawn(evaluation, rows):
        (folder / f"{name}.png").unlink(missing_ok=True)  # of an earlier report in this folder
    page = folder / REPORT_FILE
    write_atomically(page, render(evaluation, pictures, undrawn(evaluation, rows)).encode())
    return page


def render(
    evaluation: Evaluation,
    pictures: Mapping[str, Mapping[Theme, bytes]],
    missing: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """Renders the page, with the figures inlined.

    Args:
        missing: figures that cannot be drawn, and why.
    """
    card, sizes = evaluation.probe, evaluation.sizes
    name = (*card["model_names"], card["model_id"])[0]
    return render_page(
        title=f"Probe of {name} as {card['role']}",
        lead=(
            f"How well the probe estimates the {card['role']}'s semantic probability of a segment, on "
            f"{sizes['segments']:.0f} draft-written segments of {sizes['problems']:.0f} test problems labelled by the "
            f"judge “{evaluation.judge}”; {sizes['share_positive']:.0%} of them have a label of at least 0.5."
            + "".join(f" No figure {name.replace('_', ' ')}: {reason}." for name, reason in missing.items())
        ),
        tiles=_tiles(evaluation),
        figures=pictures,
        tables=_tables(evaluation),
        method=method_of(evaluation.judge),
        made={**evaluation.made, "training": card["training"]},
    )


def text_tables(evaluation: Evaluation) -> list[TableSection]:
    """Returns the main tables for a terminal; only rankings have intervals, so that lines stay short."""
    retrained: dict[str, Figures] = {
        f"{point['problems']} problems": point["figures"] for point in evaluation.learning_curve
    }
    retrained |= {row["name"]: row["figures"] for row in evaluation.ablations}
    maps = {"before calibration": evaluation.before, "after": evaluation.after}
    tables = [
        _table("Ranking", "", _ranked(evaluation, "-"), RANKING),
        _feature_table(evaluation, NUM_LISTED),
        _table("Estimates", "", maps, ERRORS, RANKING),
        _table(
            "Retrained",
            "",
            retrained,
            ("validation_auroc", "auroc", "r2", "mae", "calibration_error"),
            RANKING,
        ),
    ]
    return [table for table in tables if table.rows]


def provenance(command: str, collection: Collection) -> dict[str, Any]:
    """Returns how a report was made: command line, versions, the collection's settings."""
    manifest = collection.manifest
    return {
        "command": command,
        "versions": {name: version(name) for name in ("semanticspec", "torch", "scikit-learn")},
        "collection": {"config": manifest.config, "versions": manifest.versions},
    }


def _tiles(evaluation: Evaluation) -> list[Tile]:
    after, best = evaluation.after, evaluation.best_signal
    figures = {
        "AUROC": after["auroc"],
        f"minus the best cheap signal, {best}": evaluation.differences["auroc"],
        "ceiling": evaluation.ceiling["auroc"],
        "R²": after["r2"],
        "calibration error": after["calibration_error"],
    }
    return [Tile(_number(figure.value), name, _range(figure)) for name, figure in figures.items()]


def _tables(evaluation: Evaluation) -> list[TableSection]:
    accepted, kind = evaluation.accepted, evaluation.probe["calibration"]
    shares = (
        f"Accepted: {evaluation.acceptance_rule}. {_number(accepted['share_accepted'].value)} of all segments are "
        f"accepted; {_number(accepted['share_positive'].value)} of these have a label of at least 0.5 "
        f"{_range(accepted['share_positive'])}."
    )
    p_draft = f"p_draft: {evaluation.p_draft_source}." if evaluation.p_draft_source else ""
    maps = {"before": evaluation.before, f"after ({kind})": evaluation.after}
    on_accepted = {"probe": accepted, **evaluation.signals_accepted}
    by_size = {
        f"{p['problems']} problems, {p['contexts']} contexts": p["figures"] for p in evaluation.learning_curve
    }
    variants = {row["name"]: row["figures"] for row in evaluation.ablations}
    tables = [
        _table("Compared with cheap signals of the same pass", p_draft, _ranked(evaluation, "−"), RANKING),
        _feature_table(evaluation),
        _table("Estimates before and after calibration", "", maps),
        _table("Accepted segments only", shares, on_accepted, RANKING),
        _table("Learning curve", "Retrained on fewer problems.", by_size),
        _table(
            "Ablations",
            "Retrained with other settings. To choose one of them, compare their AUROC on validation problems.",
            variants,
            ("validation_auroc", *ALL_FIGURES),
            ALL_FIGURES,
        ),
    ]
    return [table for table in tables if table.rows]


def _ranked(evaluation: Evaluation, minus: str) -> dict[str, Figures]:
    """The probe, the cheap signals, the difference to the best of them, and the ceiling."""
    return {
        "probe": evaluation.after,
        **evaluation.signals,
        f"probe {minus} {evaluation.best_signal}": evaluation.differences,
        "ceiling": evaluation.ceiling,
    }


def _feature_table(evaluation: Evaluation, limit: int | None = None) -> TableSection:
    """The probe, retrained joint probes, every feature by itself, the ceiling; empty if there are no features."""
    if not evaluation.features:
        return _table("Features", "", {})
    rows = {"probe": evaluation.after}
    rows |= {row["name"]: row["figures"] for row in evaluation.ablations if row["name"].startswith("joint ")}
    for row in evaluation.features[:limit]:
        rows[row["name"] + ("" if row["higher_is_better"] else " (lower is better)")] = row["figures"]
    rows["ceiling"] = evaluation.ceiling
    shown = f"The best {limit} of {len(evaluation.features)} features, each" if limit else "Every feature"
    caption = f"{shown} by itself; order and direction are chosen on validation problems."
    return _table("Features", caption, rows, ("validation_auroc", "auroc"), ("auroc",))


def _table(
    title: str,
    caption: str,
    rows: Mapping[str, Figures],
    columns: Sequence[str] = ALL_FIGURES,
    with_interval: Sequence[str] = ALL_FIGURES,
) -> TableSection:
    def cell(figures: Figures, column: str) -> str:
        if column not in figures:
            return ""
        figure = figures[column]
        return _number(figure.value) + (f" {_range(figure)}" if column in with_interval else "")

    cells = {name: [cell(figures, column) for column in columns] for name, figures in rows.items()}
    return TableSection(title, caption, [HEADINGS[column] for column in columns], cells)


def _range(figure: Interval) -> str:
    return f"[{_number(figure.low)}, {_number(figure.high)}]"


def _number(value: float) -> str:
    return f"{value:.3f}" if value == value else "–"
