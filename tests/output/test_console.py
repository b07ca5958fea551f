"""Tables in the terminal."""

from __future__ import annotations

import pytest

from semanticspec.output.console import figure_table, print_table


def test_a_narrow_terminal_cuts_no_figure_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    columns = [f"column {number}" for number in range(9)]
    print_table(figure_table("title", columns, {"a method": ["12.34 %"] * 9}, "a caption"))
    printed = capsys.readouterr().out
    assert printed.count("12.34 %") == 9
    assert all(heading in printed for heading in ("title", *columns, "a method", "a caption"))
