"""HTML reports: figures drawn by matplotlib for light and dark pages, and the page itself."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from io import BytesIO
from typing import Any, Literal, NamedTuple

from semanticspec.errors import ConfigError
from semanticspec.install_hints import install_hint
from semanticspec.output.console import TableSection

Theme = Literal["light", "dark"]
Painter = Callable[[Any, Mapping[str, str]], None]
"""Draws on matplotlib axes with the colours of a theme."""

COLOURS: dict[Theme, dict[str, str]] = {
    "light": {"page": "#ffffff", "ink": "#22272e", "grid": "#d8dee4", "main": "#0b62c4", "second": "#b3541e"},
    "dark": {"page": "#161b22", "ink": "#d7dde4", "grid": "#39424e", "main": "#6cb0ff", "second": "#f0a06a"},
}
"""Blue and orange stay apart for most kinds of colour blindness."""

_DPI = 130


class Tile(NamedTuple):
    """A headline figure: its value, what it is, and a note such as its interval."""

    value: str
    label: str
    note: str = ""


def check_report_libraries(extra: str, *others: str) -> None:
    """Checks that matplotlib, jinja2 and `others` (module names) are installed, before anything is computed.

    Raises:
        ConfigError: one of them is missing.
    """
    for module in ("matplotlib", "jinja2", *others):
        if find_spec(module) is None:
            raise ConfigError(f"a report needs the module {module}: {install_hint(extra)}")


def draw(painter: Painter, size: tuple[float, float] = (5.0, 4.2)) -> dict[Theme, bytes]:
    """Draws one figure as PNG, once per theme. Deterministic: the same input gives the same bytes.

    Args:
        size: width and height in inches.
    """
    return {theme: _draw(painter, colours, size) for theme, colours in COLOURS.items()}


def _draw(painter: Painter, colours: Mapping[str, str], size: tuple[float, float]) -> bytes:
    """Draws without pyplot, so no global matplotlib state changes."""
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
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_color(colours["ink"])
    if axes.get_legend_handles_labels()[0] and axes.get_legend() is None:
        axes.legend(frameon=False, labelcolor=colours["ink"], fontsize=8)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": None})
    return buffer.getvalue()


def render_page(
    *,
    title: str,
    lead: str,
    tiles: Sequence[Tile],
    figures: Mapping[str, Mapping[Theme, bytes]],
    tables: Sequence[TableSection],
    method: str,
    made: Mapping[str, Any],
) -> str:
    """Renders a self-contained HTML report. All text is escaped.

    Args:
        figures: PNG files by name and theme; inlined.
        made: how the report was made, shown as JSON.
    """
    return render_template(
        "semanticspec.output",
        "report.html",
        title=title,
        lead=lead,
        tiles=tiles,
        figures={
            name.replace("_", " "): {theme: b64encode(png).decode() for theme, png in themes.items()}
            for name, themes in figures.items()
        },
        tables=tables,
        method=method,
        made=json.dumps(made, indent=1),
    )


def render_template(package: str, name: str, **values: Any) -> str:
    """Renders a jinja2 template that is a file of a package; only HTML templates escape the values."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(package, ""),
        autoescape=name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name).render(values)
