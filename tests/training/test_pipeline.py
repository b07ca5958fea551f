"""`semanticspec probe run`: its settings, and a small run of the bundled pair that is killed in every stage."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

from semanticspec.commands.probe import probe_app
from semanticspec.demo import settings_path
from semanticspec.errors import ConfigError, ProbeError
from semanticspec.probes import Probe
from semanticspec.training import pipeline as run_module
from semanticspec.training.data.storage import Collection
from semanticspec.training.pipeline import _Run, run
from semanticspec.training.settings import RunSettings, parse_settings, read_settings
from semanticspec.training.train import train
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

KILLED_AT = """
import os, signal, sys
from contextlib import contextmanager
from semanticspec.training import publish, stages
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

stages.progress_bar = deadly_bar
if wanted == "publish":
    publish.readme = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
sys.argv = ["semanticspec", *sys.argv[2:]]
main()
"""


def run_killed_at(stage: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", KILLED_AT, stage]
    command += ["probe", "run", str(folder / "probes.toml"), "--out", str(folder / "run")]
    settings = os.environ | {"NO_COLOR": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, env=settings, timeout=300)


@pytest.mark.slow
def test_a_run_is_killed_in_every_stage_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "probes.toml").write_text(SETTINGS)
    write_problems(tmp_path / "problems.jsonl")
    out = tmp_path / "run"
    collection = Collection(out / "data")
    expected: list[str] = []
    kept: dict[Path, int] = {}
    for stage, finished in (
        ("collecting", []),
        ("labelling", ["collect"]),
        ("training draft", ["label", "train-target"]),
        ("retraining", ["train-draft"]),
        ("publish", ["evaluate-target"]),
    ):
        killed = run_killed_at(stage, tmp_path)
        assert killed.returncode == -signal.SIGKILL, (stage, killed.stderr)
        expected += finished
        assert sorted(path.stem for path in (out / "stages").glob("*")) == sorted(expected), stage
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
    run(read_settings(out / "settings.json"), out)
    assert capsys.readouterr().err.count("skipped, already finished") == 8


def test_demo_names_the_settings_of_the_bundled_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[tuple[RunSettings, Path]] = []
    monkeypatch.setattr("semanticspec.training.pipeline.run", lambda *given: runs.append(given))
    done = CliRunner().invoke(probe_app, ["run", "demo", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.exception
    assert runs == [(read_settings(settings_path()), tmp_path)]


def test_the_bundled_settings_and_their_saved_form() -> None:
    settings = read_settings(settings_path())
    assert settings.problems.count == 120
    assert settings.collect.num_samples == 20
    assert settings.train["target"].widths == settings.train["draft"].widths == (256, 64)
    assert set(settings.train["draft"].features) < set(settings.train["target"].features)
    assert parse_settings(json.loads(settings.to_json())) == settings
    assert asdict(settings) == json.loads(settings.to_json(), object_hook=tuples)


def tuples(table: dict[str, object]) -> dict[str, object]:
    """JSON has no tuples; the settings have no lists."""
    return {
        name: tuple(value) if isinstance(value, list) else value  # lists of tables are dicts already
        for name, value in table.items()
    }


def test_a_full_disk_is_told_in_one_line_and_earlier_work_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings can be written, then nothing can."""
    (tmp_path / "probes.toml").write_text(SETTINGS)
    write_problems(tmp_path / "problems.jsonl")
    settings, out = read_settings(tmp_path / "probes.toml"), tmp_path / "run"

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_Run, "_collect", lambda _: None)
    monkeypatch.setattr(_Run, "_label", lambda _: None)
    monkeypatch.setattr(_Run, "_train", lambda *_: monkeypatch.setattr(run_module, "write_atomically", full))
    with pytest.raises(ProbeError, match="No space left on device") as caught:
        run(settings, out)
    assert "\n" not in str(caught.value)
    assert sorted(path.stem for path in (out / "stages").iterdir()) == ["collect", "label"]


def test_the_documented_settings_can_be_read(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "guides" / "probes.md").read_text()
    path = tmp_path / "probes.toml"
    path.write_text(text.split("```toml\n")[1].split("```")[0])
    settings = read_settings(path)
    assert settings.train["draft"].widths == (64, 32)
    assert settings.train["target"].estimator == "auto"
    assert settings.label.name == "numeric"


def test_problem_files_lie_beside_the_settings(tmp_path: Path) -> None:
    path = tmp_path / "probes.toml"
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "file").touch()
    for source, expected in (
        ("problems.jsonl", str(tmp_path / "problems.jsonl")),
        ("some/file", str(tmp_path / "some" / "file")),
        ("openai/gsm8k:train", "openai/gsm8k:train"),
    ):
        path.write_text(f"[problems]\nsource = {source!r}\n")
        assert read_settings(path).problems.source == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[colect]\n", "unknown key colect; expected one of pair, problems, collect, label, train, evaluate"),
        ("[collect]\nsamples = 3\n", "unknown key collect.samples; expected one of num_samples, sampling"),
        ("[collect]\nnum_samples = 'many'\n", "collect.num_samples is 'many'; expected a valid integer"),
        ("[collect]\nnum_samples = 1\n", "collect: num_samples is 1"),
        ("[collect]\nnum_samples = true\n", "collect.num_samples is True; expected a valid integer"),
        (
            "[collect.sampling]\nheat = 1\n",
            "unknown key collect.sampling.heat; expected one of temperature, top_p",
        ),
        ("[[collect.loop_rules]]\nname = 'hope'\n", "loop_rules"),
        ("[problems]\ncount = 0\n", "problems.count is 0; expected greater than or equal to 1"),
        ("[train]\nloss = 'hinge'\n", "train.target.loss is 'hinge'; expected 'bce' or 'mse'"),
        ("[train.target]\nwidth = 3\n", "unknown key train.target.width; expected one of estimator, widths"),
        ("[train.draft]\nfeatures = ['smell']\n", "train.draft: unknown probe feature 'smell'"),
        ("[train]\nfeatures = 'some'\n", "train.target.features is 'some'; expected a valid array"),
        ("train = 3\n", "train is 3; expected an object"),
        ("[pair\n", "not valid TOML"),
    ],
)
def test_bad_settings_are_told(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "probes.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        read_settings(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_settings_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_settings(tmp_path / "none.toml")
