"""Labelling survives killed processes, full disks and changed inputs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from semanticspec.errors import ProbeError
from semanticspec.training.labels.judges.numeric import NumericJudge
from semanticspec.training.labels.label import label, read_meanings
from semanticspec.training.labels.meanings import MeaningsStore
from tests.support.judging import FakeEndpoint, make_collection


def test_finished_labels_are_one_parquet_file(tmp_path: Path) -> None:
    collection = make_collection(tmp_path / "data")
    with pytest.raises(ProbeError, match="no labels by the judge 'numeric'"):
        read_meanings(collection, "numeric")
    meanings = label(collection, NumericJudge())
    assert read_meanings(collection, "numeric") == meanings
    assert meanings["problem 5"] == [0, 0, 1, 0, 0, 1] * 2
    assert [path.name for path in collection.folder.glob("meanings*")] == ["meanings-numeric.parquet"]


class Stopping(NumericJudge):
    """Counts its calls, and raises KeyboardInterrupt at call number `stop_at`."""

    def __init__(self, stop_at: int | None = None, identity: str = "") -> None:
        self.identity = identity
        self.asked, self.stop_at = 0, stop_at

    def keys(self, problem: str, context: str, segments: Sequence[str]) -> Any:
        self.asked += 1
        if self.asked == self.stop_at:
            raise KeyboardInterrupt
        return super().keys(problem, context, segments)


def test_labels_are_stored_as_they_are_made(tmp_path: Path) -> None:
    collection = make_collection(tmp_path / "data")
    with pytest.raises(KeyboardInterrupt):
        label(collection, Stopping(stop_at=8))  # two contexts a problem: three problems are done
    assert len(read_meanings(collection, "numeric")) == 3
    judge = Stopping()
    meanings = label(collection, judge)
    assert judge.asked == 6
    assert meanings == label(make_collection(tmp_path / "whole"), NumericJudge())
    assert meanings == label(collection, Stopping(stop_at=1))
    make_collection(tmp_path / "data", num_problems=8)  # two more problems
    more = Stopping()
    assert len(label(collection, more)) == 8
    assert more.asked == 4


def test_a_kill_between_the_two_files_repeats_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = make_collection(tmp_path / "data")
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        label(collection, NumericJudge())
    monkeypatch.undo()
    judge = Stopping(stop_at=1)
    assert label(collection, judge) == read_meanings(collection, "numeric")
    assert judge.asked == 0


def test_labels_of_another_judge_or_collection_are_refused(tmp_path: Path) -> None:
    collection = make_collection(tmp_path / "data")
    label(collection, Stopping(identity="model one"))
    file = collection.folder / "meanings-numeric.parquet"
    with pytest.raises(
        ProbeError, match=r"belongs to another identity \('model one', expected 'model two'\)"
    ):
        label(collection, Stopping(identity="model two"))
    other = make_collection(tmp_path / "other", seed=1)
    (other.folder / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ProbeError, match="belongs to another collection"):
        read_meanings(other, "numeric")
    (collection.folder / "meanings-exact.parquet").write_bytes(file.read_bytes())
    with pytest.raises(ProbeError, match=r"belongs to another judge \('numeric', expected 'exact'\)"):
        read_meanings(collection, "exact")
    file.write_bytes(b"no Parquet")
    with pytest.raises(ProbeError, match="is broken"):
        read_meanings(collection, "numeric")


def test_changed_segments_are_judged_again(tmp_path: Path) -> None:
    collection = make_collection(tmp_path / "data")
    label(collection, NumericJudge())
    shard = next(iter(collection))
    changed = tuple(replace(segment, text=segment.text + " pens") for segment in shard.segments)
    collection.write(replace(shard, segments=changed))
    judge = Stopping()
    label(collection, judge)
    assert judge.asked == 2
    assert MeaningsStore(collection, "numeric").has(
        next(s for s in collection if s.problem_id == shard.problem_id)
    )


SLOW_LABELLING = """
import sys, time
from semanticspec.training.labels.judges.numeric import NumericJudge
from semanticspec.training.labels.label import label
from semanticspec.training.data.storage import Collection

class Slow(NumericJudge):
    def keys(self, *args):
        time.sleep(0.15)
        return super().keys(*args)

label(Collection(sys.argv[1]), Slow())
"""


def kill_when(command: list[str], path: Path, num_lines: int) -> None:
    """Starts a process and kills it when a file has `num_lines` lines."""
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 120
        while not path.exists() or path.read_bytes().count(b"\n") < num_lines:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        assert process.wait() == -signal.SIGKILL


def test_labelling_resumes_after_sigkill(tmp_path: Path) -> None:
    collection = make_collection(tmp_path / "data", num_problems=12)
    journal = collection.folder / "meanings-numeric.journal.jsonl"
    kill_when([sys.executable, "-c", SLOW_LABELLING, str(collection.folder)], journal, 4)
    done = len(read_meanings(collection, "numeric"))
    assert 3 <= done < 12
    judge = Stopping()
    meanings = label(collection, judge)
    assert judge.asked == 2 * (12 - done)
    assert meanings == label(make_collection(tmp_path / "whole", num_problems=12), NumericJudge())
    assert not journal.exists()


@pytest.mark.slow
def test_an_endpoint_is_not_asked_again_after_sigkill(
    tmp_path: Path, endpoint: Callable[..., FakeEndpoint]
) -> None:
    server = endpoint("no", delay_s=0.1)
    collection = make_collection(tmp_path / "data", num_problems=6)
    options = ["--judge", "llm", "--judge-model", "m", "--judge-url", server.url, "--concurrency", "2"]
    code = "from semanticspec.commands.main import main; main()"
    command = [sys.executable, "-c", code, "probe", "label", "--data", str(collection.folder), *options]
    verdicts = collection.folder / "verdicts-llm.jsonl"
    kill_when(command, verdicts, 5)
    time.sleep(0.3)  # requests in flight have arrived
    kept, asked = verdicts.read_bytes().count(b"\n"), len(server.requests)
    assert 0 <= asked - kept <= 2
    subprocess.run(command, check=True, capture_output=True)
    assert (
        len(server.requests) == 6 * 2 * 3 + asked - kept
    )  # three pairs a context; only those under way again
    assert set(read_meanings(collection, "llm")["problem 0"]) == {0, 1, 2}
    subprocess.run(command, check=True, capture_output=True)
    assert len(server.requests) == 6 * 2 * 3 + asked - kept
