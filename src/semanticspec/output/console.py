"""Messages and tables in the terminal."""

from __future__ import annotations

import codecs
import sys
from collections.abc import Mapping, Sequence
from io import TextIOWrapper
from typing import NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

_ASCII = {"·": "-", "…": "...", "–": "-", "−": "-", "×": "x", "²": "2", "“": '"', "”": '"', "’": "'"}
_UNLIMITED = 10_000


class TableSection(NamedTuple):
    """A table with a title. `rows` maps a row's name to its cells; "0.9 [0.8, 1.0]" shows the interval small."""

    title: str
    caption: str
    columns: Sequence[str]
    rows: Mapping[str, Sequence[str]]


def messages() -> Console:
    """Returns the console for notes, warnings and statistics: standard error, so that pipes get only the output."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def print_table(section: TableSection) -> None:
    """Prints a table on standard output. Columns that do not fit side by side continue in further tables below."""
    width = Console().width
    for part in _parts_that_fit(section, width):
        table = _table(part)
        Console(width=max(width, _width(table))).print(table)


def use_safe_characters() -> None:
    """Lets standard output and error print any text, also where the terminal's encoding has only a part of Unicode.

    Typographic characters become their ASCII form; others are written as escapes.
    """
    codecs.register_error("semanticspec", _replace)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
            stream.reconfigure(errors="semanticspec")


def _replace(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    text = error.object[error.start : error.end]
    return "".join(_ASCII.get(c, c.encode("ascii", "backslashreplace").decode()) for c in text), error.end


def _parts_that_fit(section: TableSection, width: int) -> list[TableSection]:
    """Splits a table by columns. The first part has the title, the last one the caption."""
    groups: list[list[int]] = [[]]
    for place in range(len(section.columns)):
        if groups[-1] and _width(_table(_columns_of(section, [*groups[-1], place]))) > width:
            groups.append([])
        groups[-1].append(place)
    parts = [_columns_of(section, group) for group in groups]
    parts[0] = parts[0]._replace(title=section.title)
    parts[-1] = parts[-1]._replace(caption=section.caption)
    return parts


def _columns_of(section: TableSection, places: Sequence[int]) -> TableSection:
    rows = {name: [cells[place] for place in places] for name, cells in section.rows.items()}
    return TableSection("", "", [section.columns[place] for place in places], rows)


def _table(section: TableSection) -> Table:
    """Returns a table with one named row of figures per line, with intervals below the figures."""
    table = Table(
        title=section.title or None,
        title_justify="left",
        caption=section.caption or None,
        caption_justify="left",
        box=SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    table.add_column("", no_wrap=True)
    for heading in section.columns:
        table.add_column(heading.replace(", ", ",\n"), justify="right", no_wrap=True)
    for name, cells in section.rows.items():
        table.add_row(name, *(cell.replace(" [", "\n[") for cell in cells))
    return table


def _width(table: Table) -> int:
    """Returns the width in which no figure is cut off; title and caption may wrap."""
    return Console(width=_UNLIMITED).measure(table).maximum
