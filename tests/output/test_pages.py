"""HTML reports: self-contained, deterministic, escaped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from semanticspec.output.console import TableSection
from semanticspec.output.pages import Tile, draw, render_page


def paint(axes: Any, colours: Mapping[str, str]) -> None:
    axes.plot([0, 1], [1, 0], color=colours["main"], label="line")
    axes.set(title="a title")


@pytest.fixture(scope="module")
def page() -> str:
    return render_page(
        title="Probe <a>",
        lead="Lead & more",
        tiles=[Tile("0.9", "AUROC", "[0.8, 1.0]"), Tile("1", "<b>")],
        figures={"learning_curve": draw(paint)},
        tables=[
            TableSection(
                "Table", "Caption", ["x", "<y>"], {"row & 1": ["0.9 [0.8, 1.0]", ""], "2": ["–", "<i>"]}
            )
        ],
        method="Method",
        made={"command": "a && b"},
    )


def test_everything_is_on_the_page(page: str) -> None:
    assert page.count("<title>Probe &lt;a&gt;</title>") == 1
    assert "<b>0.9</b><span>AUROC<br>[0.8, 1.0]</span>" in page
    assert '<th scope="row">row &amp; 1</th><td>0.9 <small>[0.8, 1.0]</small></td><td></td>' in page
    assert "<caption>Caption</caption>" in page
    assert "a &amp;&amp; b" in page


def test_text_is_escaped(page: str) -> None:
    assert not any(tag in page for tag in ("<a>", "<y>", "<i>", "<b><"))
    assert "<span>&lt;b&gt;<br></span>" in page


def test_figures_are_inlined_for_both_themes(page: str) -> None:
    assert page.count("data:image/png;base64,") == 2
    assert 'alt="learning curve"' in page
    assert "://" not in page  # "http" alone can occur in base64


def test_drawing_is_deterministic() -> None:
    assert draw(paint) == draw(paint)
    assert draw(paint)["light"] != draw(paint)["dark"]
