"""Journals keep complete lines after kills and on full disks."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from semanticspec.errors import BenchmarkError, ProbeError
from semanticspec.output.journal import Journal


def test_a_torn_line_is_dropped(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    journal.append([{"a": 1}, {"b": "x" * 9000}])
    with journal.path.open("ab") as file:
        file.write(b'{"c": "' + b"y" * 9000)
    assert [list(record) for record in journal.read()] == [["a"], ["b"]]
    journal.append([{"d": 4}])
    assert [list(record) for record in journal.read()] == [["a"], ["b"], ["d"]]
    journal.path.write_bytes(b"{torn from the start")
    journal.append([{"e": 5}])
    assert journal.read() == [{"e": 5}]
    for broken in (b"{\n", b"5\n"):
        journal.path.write_bytes(broken)
        with pytest.raises(ProbeError, match="broken"):
            journal.read()


def test_a_path_that_cannot_be_read_is_not_to_be_deleted(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "j.jsonl", tmp_path):
        with pytest.raises(ProbeError, match="cannot read") as caught:
            Journal(path).read()
        assert "delete" not in str(caught.value)


def test_a_full_disk_keeps_earlier_records(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    journal.append([{"a": 1}])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(ProbeError, match=r"cannot write .*File too large; earlier lines are kept"):
            journal.append([{"b": "x" * 500}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert journal.read() == [{"a": 1}]
    journal.append([{"c": 3}])
    assert journal.read() == [{"a": 1}, {"c": 3}]


def test_a_missing_file_has_no_lines_and_errors_are_of_the_given_type(tmp_path: Path) -> None:
    assert Journal(tmp_path / "j.jsonl").read() == []
    with pytest.raises(BenchmarkError, match="cannot write"):
        Journal(tmp_path / "no" / "j.jsonl", BenchmarkError).append([{}])
