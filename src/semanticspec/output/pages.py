"""What reports have in common: figures drawn by matplotlib for light and for dark pages, and the page itself."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib import resources
from io import BytesIO
from string import Template
from typing import Any, Literal

Theme = Literal["light", "dark"]
Painter = Callable[[Any, Mapping[str, str]], None]
"""Draws on axes of matplotlib with the colours of a theme."""

COLOURS: dict[Theme, dict[str, str]] = {
    "light": {"page": "#ffffff", "ink": "#22272e", "grid": "#d8dee4", "main": "#0b62c4", "second": "#b3541e"},
    "dark": {"page": "#161b22", "ink": "#d7dde4", "grid": "#39424e", "main": "#6cb0ff", "second": "#f0a06a"},
}
"""Blue and orange differ for most kinds of colour blindness too."""

_RESOLUTION = 130  # dots an inch


def draw(painter: Painter, size: tuple[float, float] = (5.0, 4.2)) -> dict[Theme, bytes]:
    """One figure as PNG files, by theme; the same input gives the same bytes.

    Args:
        size: width and height, inches.
    """
    return {theme: _draw(painter, colours, size) for theme, colours in COLOURS.items()}


def _draw(painter: Painter, colours: Mapping[str, str], size: tuple[float, float]) -> bytes:
    """Touches no global state of matplotlib, so it works beside other plots."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained", facecolor=colours["page"])
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_facecolor(colours["page"])
    axes.grid(color=colours["grid"], linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=colours["ink"], length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(colours["grid"])
    painter(axes, colours)
    axes.title.set_color(colours["ink"])
    axes.xaxis.label.set_color(colours["ink"])
    axes.yaxis.label.set_color(colours["ink"])
    if axes.get_legend_handles_labels()[0] and axes.get_legend() is None:
        axes.legend(frameon=False, labelcolor=colours["ink"], fontsize=8)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=_RESOLUTION, metadata={"Software": None})
    return buffer.getvalue()


def picture(name: str, themes: Mapping[Theme, bytes]) -> str:
    """A figure as HTML, inlined for both themes."""
    light, dark = (
        f"data:image/png;base64,{b64encode(themes[theme]).decode()}" for theme in ("light", "dark")
    )
    label = escape(name.replace("_", " "))
    return (
        f'<figure><picture><source srcset="{dark}" media="(prefers-color-scheme: dark)">'
        f'<img src="{light}" alt="{label}"></picture></figure>'
    )


def render_page(
    *,
    title: str,
    lead: str,
    tiles: Sequence[str],
    figures: Sequence[str],
    tables: Sequence[str],
    method: str,
    made: Mapping[str, Any],
) -> str:
    """A report that needs nothing beside it.

    Args:
        title, lead, method: plain text. tiles, figures, tables: HTML.
        made: how it was made, shown as JSON.
    """
    template = Template(resources.files("semanticspec.output").joinpath("report.html").read_text())
    return template.substitute(
        title=escape(title),
        lead=escape(lead),
        tiles="".join(tiles),
        figures="".join(figures),
        tables="".join(tables),
        method=escape(method),
        made=escape(json.dumps(made, indent=1)),
    )


def table_section(title: str, caption: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """A heading and a table as HTML. The cells of `rows` are HTML already, all else is text."""
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in columns)
    body = "".join(
        f"<tr><th scope=row>{escape(name)}</th>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
        for name, cells in rows.items()
    )
    return (
        f'<h2>{escape(title)}</h2><div class="scroll"><table><caption>{escape(caption)}</caption>'
        f"<thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )
