"""The report of an evaluation: figures as PNG files and one HTML page that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

from semanticspec.output.files import write_atomically
from semanticspec.output.pages import Theme, picture, render_page, table_section
from semanticspec.training.charts import draw_all
from semanticspec.training.data.storage import Collection
from semanticspec.training.evaluate import Evaluation, Figures, JudgedRows
from semanticspec.training.metrics import Interval

REPORT_FILE = "report.html"
HEADINGS = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "r2": "R²",
    "mae": "mean abs. error",
    "spearman": "Spearman",
    "calibration_error": "calibration error",
}
METHOD = (
    "Draft-written segments of test problems, which neither training nor early stopping nor calibration has seen, "
    "counted as often as they were drawn. Label: share of the model's own samples in that context with the same "
    "meaning, by the judge named above. AUROC and average precision: telling labels of at least 0.5 from others. "
    "In brackets: 95 % intervals from 1000 resamples of problems. The best cheap signal is chosen on these very rows, "
    "in its favour. Calibration error: mean distance of estimate and label over ten equal bins. Ceiling: labels from "
    "one half of the model's samples against labels from the other."
)


def write_report(evaluation: Evaluation, rows: JudgedRows, folder: Path) -> Path:
    """Writes `evaluation.json`, the figures (for light pages) as PNG files and `report.html` into a folder.

    Returns:
        The page.
    """
    evaluation.save(folder)
    pictures = draw_all(evaluation, rows)
    for name, themes in pictures.items():
        write_atomically(folder / f"{name}.png", themes["light"])
    page = folder / REPORT_FILE
    write_atomically(page, render(evaluation, pictures).encode())
    return page


def render(evaluation: Evaluation, pictures: Mapping[str, Mapping[Theme, bytes]]) -> str:
    """The page as text, figures inlined."""
    card, sizes = evaluation.probe, evaluation.sizes
    name = (*card["model_names"], card["model_id"])[0]
    return render_page(
        title=f"The {card['role']}'s probe of {name}",
        lead=(
            f"How likely the {card['role']} is to say something with a segment's meaning, judged on "
            f"{sizes['segments']:.0f} draft-written segments of {sizes['problems']:.0f} test problems by the judge "
            f"“{evaluation.judge}”; {sizes['share_positive']:.0%} of them have a label of at least 0.5."
        ),
        tiles=_tiles(evaluation),
        figures=[picture(name, themes) for name, themes in pictures.items()],
        tables=_tables(evaluation),
        method=METHOD,
        made={**evaluation.made, "training": card["training"]},
    )


def text_tables(evaluation: Evaluation) -> list[tuple[str, list[str], list[list[str]]]]:
    """The main tables for a terminal: title, headings, lines."""
    scored = {"probe": evaluation.after, **evaluation.signals}
    scored[f"probe - {evaluation.best_signal}"] = evaluation.differences
    scored["ceiling"] = evaluation.ceiling
    maps = {"before calibration": evaluation.before, "after": evaluation.after}
    again: dict[str, Figures] = {
        f"{point['problems']} problems": point["figures"] for point in evaluation.learning_curve
    }
    again |= {row["name"]: row["figures"] for row in evaluation.ablations}
    errors = ("r2", "mae", "spearman", "calibration_error")
    tables = [("Ranking", scored, ("auroc", "average_precision")), ("Estimates", maps, errors)]
    if again:
        tables.append(("Trained again", again, ("auroc", "r2", "mae", "calibration_error")))
    return [
        (
            title,
            ["", *(HEADINGS[column] for column in columns)],
            [[name, *(_text(figures, column) for column in columns)] for name, figures in rows.items()],
        )
        for title, rows, columns in tables
    ]


def how_made(command: str, collection: Collection) -> dict[str, Any]:
    """What a report says of its making: command line, versions, the collection's settings."""
    manifest = collection.manifest
    return {
        "command": command,
        "versions": {name: version(name) for name in ("semanticspec", "torch", "scikit-learn")},
        "collection": {name: manifest.get(name) for name in ("config", "versions")},
    }


def _tiles(evaluation: Evaluation) -> list[str]:
    after, best = evaluation.after, evaluation.best_signal
    tiles = (
        ("AUROC", after["auroc"]),
        (f"minus the best cheap signal, {best}", evaluation.differences["auroc"]),
        ("ceiling", evaluation.ceiling["auroc"]),
        ("R²", after["r2"]),
        ("calibration error", after["calibration_error"]),
    )
    return [
        f'<div class="tile"><b>{_number(figure.value)}</b><span>{escape(name)}<br>{_range(figure)}</span></div>'
        for name, figure in tiles
    ]


def _tables(evaluation: Evaluation) -> list[str]:
    ranking = ("auroc", "average_precision")
    scored: dict[str, Figures] = {"probe": evaluation.after, **evaluation.signals}
    scored[f"probe − {evaluation.best_signal}"] = evaluation.differences
    scored["ceiling"] = evaluation.ceiling
    accepted = {"probe": evaluation.accepted, **evaluation.signals_accepted}
    shares = (
        f"Accepted: {evaluation.acceptance_rule}. {_number(evaluation.accepted['share_accepted'].value)} of all "
        f"segments are; {_number(evaluation.accepted['share_positive'].value)} of these have a label of at least 0.5 "
        f"{_range(evaluation.accepted['share_positive'])}."
    )
    p_draft = f"p_draft: {evaluation.p_draft_source}." if evaluation.p_draft_source else ""
    kind = evaluation.probe["calibration"]
    maps = {"before": evaluation.before, f"after ({kind})": evaluation.after}
    tables = [
        _table("Beside cheap signals of the same pass", p_draft, scored, ranking),
        _table("Estimates, before and after the calibration map", "", maps, tuple(HEADINGS)),
        _table("On accepted segments alone", shares, accepted, ranking),
    ]
    if evaluation.learning_curve:
        named = {
            f"{point['problems']} problems, {point['contexts']} contexts": point["figures"]
            for point in evaluation.learning_curve
        }
        tables.append(_table("Learning curve", "Trained again on fewer problems.", named, tuple(HEADINGS)))
    if evaluation.ablations:
        listed = {row["name"]: row["figures"] for row in evaluation.ablations}
        tables.append(_table("Ablations", "Trained again in other ways.", listed, tuple(HEADINGS)))
    return tables


def _table(title: str, caption: str, rows: Mapping[str, Figures], columns: Sequence[str]) -> str:
    cells = {
        name: [_cell(figures[column]) if column in figures else "" for column in columns]
        for name, figures in rows.items()
    }
    return table_section(title, caption, [HEADINGS[column] for column in columns], cells)


def _cell(figure: Interval) -> str:
    return f"{_number(figure.value)} <small>{_range(figure)}</small>"


def _number(value: float) -> str:
    return f"{value:.3f}" if value == value else "–"


def _text(figures: Figures, column: str) -> str:
    """A figure for the terminal: rankings with their interval, the rest without, or lines would break."""
    interval = f" {_range(figures[column])}" if column in ("auroc", "average_precision") else ""
    return _number(figures[column].value) + interval


def _range(figure: Interval) -> str:
    return f"[{_number(figure.low)}, {_number(figure.high)}]"
