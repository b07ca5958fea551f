"""Atomic writes."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from semanticspec.errors import ConfigError
from semanticspec.output.files import check_output_file, check_output_folder, write_atomically


def test_a_failed_write_keeps_the_old_content_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_not_a_regular_file_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    """`--out /dev/full` must not turn the device into a file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_atomically(pipe, b"content")
    assert os.read(reader, 100) == b"content"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_an_output_folder_is_checked_without_being_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check_output_folder(tmp_path / "new" / "folder")
    check_output_folder(tmp_path)
    assert not (tmp_path / "new").exists()
    with pytest.raises(ConfigError, match=r"--out .*file is a file; expected a folder"):
        check_output_folder(tmp_path / "file")
    with pytest.raises(ConfigError, match=r"--out is below .*file, which is a file"):
        check_output_folder(tmp_path / "file" / "folder")


def test_an_output_file_is_checked_without_being_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    check_output_file(tmp_path / "file")
    check_output_file(tmp_path / "new" / "file")
    check_output_file(Path("/dev/null"))
    with pytest.raises(ConfigError, match="is a folder; expected a file"):
        check_output_file(tmp_path)
    with pytest.raises(ConfigError, match="which is a file"):
        check_output_file(tmp_path / "file" / "inside")


def test_what_may_not_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("os.access", lambda *_: False)
    for check, path in ((check_output_folder, tmp_path), (check_output_file, tmp_path / "file")):
        with pytest.raises(ConfigError, match="is not writable"):
            check(path)
