"""Messages and tables in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


def messages() -> Console:
    """Returns the console for notes, warnings and statistics: standard error, so that pipes get only the output."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def print_table(table: Table) -> None:
    """Prints a table on standard output. In a narrow terminal the lines wrap; no figure is cut off."""
    console = Console()
    needed = Console(width=1000).measure(table).maximum
    Console(width=max(console.width, needed)).print(table)


def figure_table(
    title: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]], caption: str | None = None
) -> Table:
    """Returns a table with one named row of figures per line."""
    table = Table(
        title=title,
        title_justify="left",
        caption=caption,
        caption_justify="left",
        box=SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    table.add_column("", no_wrap=True)
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table
