"""`semanticspec probe run`: a small run of the bundled pair that is killed in every stage and resumed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from semanticspec.engines.base import StateSpec
from semanticspec.errors import ConfigError, ProbeError
from semanticspec.loading import load_pair
from semanticspec.probes import Probe
from semanticspec.training import pipeline as run_module
from semanticspec.training.align.answers import Answers
from semanticspec.training.data.storage import Collection
from semanticspec.training.pipeline import _Pipeline, run
from semanticspec.training.settings import parse_settings, read_settings
from semanticspec.training.train import (
    train,
)
from tests.support.demo_problems import write_problems

SETTINGS = """
[problems]
source = "problems.jsonl"

[collect]
num_samples = 4
max_contexts = 2
max_segment_tokens = 40
max_trace_tokens = 64
one_trace = true

[train]
widths = [8]
features = "all"
max_epochs = 5

[train.draft]
estimator = "features"
"""

ALIGN = """
[align.answers]
max_new_tokens = 40

[align.training]
max_epochs = 1
rank = 4
batch_tokens = 64
"""


KILLED_AT = """
import os, signal, sys
from contextlib import contextmanager
from semanticspec.training import publish, stages
from semanticspec.training.align import align
from semanticspec.commands.main import main

wanted, bar = sys.argv[1], stages.progress_bar

@contextmanager
def deadly_bar(name):
    with bar(name) as (advance, on_total):
        steps = []
        def step(note):
            advance(note)
            steps.append(note)
            if name == wanted and len(steps) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
        yield step, on_total

stages.progress_bar = align.progress_bar = deadly_bar
if wanted == "publish":
    publish.readme = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
sys.argv = ["semanticspec", *sys.argv[2:]]
main()
"""


def run_killed_at(stage: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", KILLED_AT, stage]
    command += ["prepare", str(folder / "probes.toml"), "--out", str(folder / "run")]
    settings = os.environ | {"NO_COLOR": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, env=settings, timeout=300)


@pytest.mark.slow
def test_a_run_is_killed_in_every_stage_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "probes.toml").write_text(SETTINGS + ALIGN)
    write_problems(tmp_path / "problems.jsonl")
    out = tmp_path / "run"
    collection = Collection(out / "data")
    expected: list[str] = []
    kept: dict[Path, int] = {}
    for stage, finished in (
        ("target answers", []),
        ("training", []),
        ("collecting", ["align"]),
        ("labelling", ["collect"]),
        ("training draft", ["label", "train-target"]),
        ("retraining", ["train-draft"]),
        ("publish", ["evaluate-target"]),
    ):
        killed = run_killed_at(stage, tmp_path)
        assert killed.returncode == -signal.SIGKILL, (stage, killed.stderr)
        expected += finished
        assert sorted(path.stem for path in (out / "stages").glob("*")) == sorted(expected), stage
        if stage == "training":
            assert len(Answers(out / "align" / "answers").read()) == 6
        if stage == "collecting":
            assert 2 <= len(collection) < 6
            kept = {path: path.stat().st_mtime_ns for path in (out / "data").rglob("*") if path.is_file()}
    settings = read_settings(tmp_path / "probes.toml")
    run(settings, out)
    said = capsys.readouterr().err
    assert "collect: skipped, already finished" in said
    assert "publish-draft\n" in said

    shards = list(collection)
    assert len({shard.problem_id for shard in shards}) == len(shards) == 6
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items() if path.exists())
    assert sum(path.exists() for path in kept) >= 2
    for role in ("target", "draft"):
        probe = Probe.load(out / "published" / role)
        alone = train(collection, role, "exact", settings.train[role])
        alone.save(tmp_path / "alone")
        assert Probe.load(tmp_path / "alone").card == probe.card
        assert "AUROC" in (out / "published" / role / "README.md").read_text()
    pair = load_pair(pair=str(out / "pair"))
    assert pair.draft.engine.info.adapter == collection.manifest.draft.adapter != ""
    assert pair.draft_probe is not None
    assert "Probability that a token is kept" in (out / "pair" / "README.md").read_text()
    run(read_settings(out / "settings.json"), out)
    assert capsys.readouterr().err.count("skipped, already finished") == 10


def test_a_full_disk_is_told_in_one_line_and_earlier_work_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings can be written, then nothing can."""
    (tmp_path / "probes.toml").write_text(SETTINGS)
    write_problems(tmp_path / "problems.jsonl")
    settings, out = read_settings(tmp_path / "probes.toml"), tmp_path / "run"

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_Pipeline, "_collect", lambda _: None)
    monkeypatch.setattr(_Pipeline, "_label", lambda _: None)
    monkeypatch.setattr(
        _Pipeline, "_train", lambda *_: monkeypatch.setattr(run_module, "write_atomically", full)
    )
    with pytest.raises(ProbeError, match="No space left on device") as caught:
        run(settings, out)
    assert "\n" not in str(caught.value)
    assert sorted(path.stem for path in (out / "stages").iterdir()) == ["collect", "label"]


def test_a_run_whose_training_its_collection_cannot_serve_does_nothing(tmp_path: Path) -> None:
    settings = parse_settings({"train": {"draft": {"pooling": "attention"}}})
    with pytest.raises(ConfigError, match="--pooling none"):
        run(settings, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    pair = parse_settings({"pair": {"pooling": "none", "target_layer": 3}}).pair
    assert pair.states == {"target": StateSpec(3, "none"), "draft": StateSpec(-1, "none")}


def test_a_refused_run_keeps_the_settings_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "probes.toml").write_text(SETTINGS)
    write_problems(tmp_path / "problems.jsonl")
    settings, out = read_settings(tmp_path / "probes.toml"), tmp_path / "run"
    out.mkdir()
    (out / "settings.json").write_text(settings.to_json())

    def refuse(_: _Pipeline) -> None:
        raise ProbeError("the folder holds a collection made with other settings")

    monkeypatch.setattr(_Pipeline, "_collect", refuse)
    other = replace(settings, collect=replace(settings.collect, num_samples=9))
    with pytest.raises(ProbeError, match="made with other settings"):
        run(other, out)
    assert (out / "settings.json").read_text() == settings.to_json()
    monkeypatch.setattr(_Pipeline, "_collect", lambda _: None)
    monkeypatch.setattr(_Pipeline, "_label", refuse)
    with pytest.raises(ProbeError):
        run(other, out)
    assert read_settings(out / "settings.json") == other
