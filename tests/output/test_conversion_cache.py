"""Kept conversions: whole or missing, found again under their name, never in the way."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from semanticspec.output.conversion_cache import (
    CACHE_VARIABLE,
    cache_folder,
    keep_conversion,
    kept_conversion,
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(folder: Path) -> None:
    (folder / "part-1").write_text("one")
    (folder / "part-2").write_text("two")


def test_a_kept_conversion_is_found_under_its_name(cache: Path) -> None:
    assert kept_conversion("gguf/abc") is None
    keep_conversion("gguf/abc", write)
    folder = kept_conversion("gguf/abc")
    assert folder == cache / "gguf" / "abc"
    assert (folder / "part-2").read_text() == "two"
    assert kept_conversion("gguf/other") is None
    assert [path.name for path in (cache / "gguf").iterdir()] == ["abc"]


def test_a_failed_conversion_leaves_nothing_and_is_said(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(folder: Path) -> None:
        write(folder)
        raise OSError("No space left on device")

    with caplog.at_level(logging.WARNING):
        keep_conversion("gguf/abc", fails)
    assert "abc cannot be written (No space left on device): the conversion runs again" in caplog.text
    assert kept_conversion("gguf/abc") is None
    assert list((cache / "gguf").iterdir()) == []


def test_of_two_processes_that_convert_at_once_one_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    def slow(folder: Path) -> None:
        keep_conversion("gguf/abc", write)  # the other process finishes first
        (folder / "part-1").write_text("late")

    keep_conversion("gguf/abc", slow)
    folder = kept_conversion("gguf/abc")
    assert folder is not None
    assert (folder / "part-1").read_text() == "one"
    assert caplog.text == ""


def test_a_cache_that_cannot_be_written_is_said_and_changes_nothing_else(
    cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write_text("a file where the folder should be")
    keep_conversion("gguf/abc", write)
    assert "cannot be written" in caplog.text
    assert kept_conversion("gguf/abc") is None


def test_the_folder_follows_the_usual_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "semanticspec"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "semanticspec"
