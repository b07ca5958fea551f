"""Fixtures for tests of the command line."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from tests.support.command_line import CommandLine


@pytest.fixture
def semanticspec(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[CommandLine]:
    """Runs a command in this process; warnings are shown as a new process shows them."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "160")
    with warnings.catch_warnings():
        warnings.resetwarnings()
        warnings.simplefilter("ignore", DeprecationWarning)
        yield CommandLine(monkeypatch, capsys)
