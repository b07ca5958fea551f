"""Tables in the terminal, and terminals that have a part of Unicode only."""

from __future__ import annotations

import io
import sys

import pytest

from semanticspec.output.console import TableSection, print_table, use_safe_characters

WIDE = TableSection(
    "title",
    "a caption",
    [f"column {number}" for number in range(9)],
    {"a method": ["12.34 % [1.00, 2.00]"] * 9},
)


def test_a_table_that_is_too_wide_continues_below(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    print_table(WIDE)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert printed.count("a method") > 1
    assert printed.count("title") == printed.count("a caption") == 1
    assert all(printed.count(heading) == 1 for heading in WIDE.columns)


def test_a_table_that_fits_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    print_table(WIDE)
    assert capsys.readouterr().out.count("a method") == 1


def test_a_narrow_terminal_cuts_no_figure_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "12")
    print_table(WIDE)
    printed = capsys.readouterr().out
    assert printed.count("12.34 %") == printed.count("[1.00, 2.00]") == 9
    assert all(heading in printed for heading in WIDE.columns)


def test_an_ascii_terminal_prints_any_text(monkeypatch: pytest.MonkeyPatch) -> None:
    content = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(content, encoding="ascii"))
    use_safe_characters()
    print("5 tokens · 2.00×, “東”…")
    sys.stdout.flush()
    assert content.getvalue() == b'5 tokens - 2.00x, "\\u6771"...\n'
