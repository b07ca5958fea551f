"""Files of a collection: rows, states, manifest, full disks and killed processes."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch

from semanticspec.errors import ProbeError
from semanticspec.training.data.storage import Collection
from tests.support.collecting import (
    assert_same,
    opened,
    run_collect,
    shard_of,
)


def test_a_shard_survives_a_round_trip(tmp_path: Path) -> None:
    collection, shard = opened(tmp_path), shard_of()
    collection.write(shard)
    (found,) = collection
    assert replace(found, target_states=shard.target_states, draft_states=shard.draft_states) == shard
    assert torch.equal(found.target_states, shard.target_states)
    assert torch.equal(found.draft_states, shard.draft_states)


def test_shards_are_plain_parquet_files(tmp_path: Path) -> None:
    opened(tmp_path).write(shard_of())
    (path,) = (tmp_path / "problems").glob("*.parquet")
    table = pyarrow.parquet.read_table(path)
    assert table.schema.metadata[b"problem_id"] == b"one"
    assert table.schema.metadata[b"prompt"].decode() == '"?" ü\n'
    assert table.to_pylist()[0] == {
        "context_id": "0",
        "origin": "given",
        "context": "so far\n\n",
        "author": "target",
        "text": "é\n\n",
        "count": 2,
        "stop_reason": "stop",
        "token_ids": [5, 2],
        "target_logprobs": [-0.5, -1.25],
        "draft_logprobs": [],
        "target_ranks": [1, 2],
        "target_entropies": [0.5, 0.25],
        "target_margins": [2.0, 0.125],
    }


def test_shards_of_earlier_versions_have_no_margins(tmp_path: Path) -> None:
    collection = opened(tmp_path)
    collection.write(shard_of())
    (path,) = (tmp_path / "problems").glob("*.parquet")
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).drop_columns("target_margins"), path)
    (shard,) = collection
    assert [segment.target_margins for segment in shard.segments] == [(), ()]
    assert [segment.target_entropies for segment in shard.segments] == [(0.5, 0.25)] * 2


def test_errors_name_the_file_that_is_broken_or_foreign(tmp_path: Path) -> None:
    collection = opened(tmp_path / "data")
    collection.write(shard_of())
    (path,) = (collection.folder / "problems").glob("*.parquet")
    rows, states = path.read_bytes(), path.with_suffix(".safetensors").read_bytes()

    def message() -> str:
        with pytest.raises(ProbeError) as caught:
            list(Collection(collection.folder))
        assert path.name in str(caught.value)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    path.write_bytes(rows[: len(rows) // 2])
    assert "is broken" in message()
    pyarrow.parquet.write_table(pyarrow.table({"x": [1]}), path)
    assert "another format (None, expected '2')" in message()
    table = pyarrow.parquet.read_table(pyarrow.BufferReader(rows))
    pyarrow.parquet.write_table(
        table.replace_schema_metadata({**table.schema.metadata, b"format": b"3"}), path
    )
    assert "another format ('3', expected '2')" in message()
    pyarrow.parquet.write_table(table.drop_columns("count"), path)
    assert "other columns or types than context_id, " in message()
    other = opened(tmp_path / "other", fingerprint="another model")
    other.write(shard_of())
    path.write_bytes((other.folder / "problems" / path.name).read_bytes())
    assert "belongs to another collection" in message()
    path.write_bytes(rows)
    shard = shard_of("two")
    collection.write(shard)
    path.with_suffix(".safetensors").write_bytes(states[:50])
    assert "is broken" in message()
    collection.write(shard_of(target_states=torch.zeros(3, 6)))
    assert "differ in length" in message()
    path.with_suffix(".safetensors").write_bytes(states)
    path.write_bytes(next(p for p in path.parent.glob("*.parquet") if p != path).read_bytes())
    assert "belongs into another file" in message()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 1}, "format is 1; expected 2; collect into a new folder"),
        ({"layers": 3}, "unknown key layers; expected one of format, target, draft"),
        ({"draft": {}}, "draft.model_id is missing"),
    ],
)
def test_an_unusable_manifest_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    opened(tmp_path)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | changes))
    with pytest.raises(ProbeError, match=rf"manifest\.json: {said}"):
        opened(tmp_path)
    manifest.write_text("{")
    with pytest.raises(ProbeError, match=r"manifest\.json: not valid JSON"):
        opened(tmp_path)
    manifest.unlink()
    with pytest.raises(ProbeError, match="holds no collection; make one with"):
        list(Collection(tmp_path))


def test_a_collection_of_earlier_versions_can_be_read(tmp_path: Path) -> None:
    """Written before manifests had `layer` and `pooling`, and before probes were among them."""
    model = {"model_id": "some/model", "revision": "abc", "hidden_size": 6, "num_layers": 2}
    model |= {"norm_state": "post", "fingerprint": "f00d"}
    manifest = {"format": 2, "target": model, "draft": model, "config": {"seed": 0, "loop_rules": []}}
    (tmp_path / "problems").mkdir()
    (tmp_path / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    collection = Collection(tmp_path)
    assert collection.digest == hashlib.blake2b(json.dumps(manifest).encode(), digest_size=10).hexdigest()
    collection.write(shard_of())
    assert len(list(Collection(tmp_path))) == 1
    assert (collection.manifest.target.layer, collection.pooling("draft")) == (-1, "mean")


def test_without_pyarrow_the_install_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ProbeError, match=r"need pyarrow: pip install .*probes"):
        opened(tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("full_at", ["the states", "the rows"])
def test_a_full_disk_keeps_the_finished_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full_at: str
) -> None:
    """The disk is full in the middle of the third problem."""
    whole = run_collect(tmp_path / "whole")
    sync, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) >= (6 if full_at == "the states" else 7):  # a manifest, then two files a problem
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    data = tmp_path / "data"
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ProbeError) as caught:
        run_collect(data)
    said = str(caught.value)
    assert "No space left on device" in said
    assert "2 finished problems are kept" in said
    assert "rerun the same command to resume" in said
    assert sorted(path.suffix for path in (data / "problems").iterdir()) == [
        ".parquet",
        ".parquet",
        ".safetensors",
        ".safetensors",
    ]
    monkeypatch.setattr(os, "fsync", sync)
    assert_same(run_collect(data), whole)


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ProbeError, match=r"no collection can be written to .*file"):
        opened(tmp_path / "file" / "data")


def test_partial_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    opened(tmp_path)
    old, fresh = (tmp_path / "problems" / f".{name}.parquet.7.part" for name in ("old", "fresh"))
    for path in (old, fresh):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    opened(tmp_path)
    assert (old.exists(), fresh.exists()) == (False, True)
