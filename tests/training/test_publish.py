"""Publishing a probe: a folder or a repository on the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from semanticspec.commands.probe import probe_app
from semanticspec.errors import ConfigError, ProbeError
from semanticspec.probes import Probe
from semanticspec.training.metrics import (
    Interval,
)
from semanticspec.training.publish import publish, push
from tests.support.collecting import (
    make_probe,
    make_untrained_probe,
)

ONE = Interval(0.9123, 0.8, 0.95)


@pytest.fixture
def probe(tmp_path: Path) -> Path:
    made = make_probe(model_names=("Maker/Some-Model",))
    made.save(tmp_path / "probe")
    return tmp_path / "probe"


@pytest.fixture
def report(tmp_path: Path, probe: Path) -> Path:
    """A report's folder with just what publishing reads; `test_evaluate` makes real ones."""
    folder = tmp_path / "report"
    folder.mkdir()
    ranking = {"auroc": ONE._asdict(), "average_precision": ONE._asdict()}
    errors = dict.fromkeys(("r2", "mae", "spearman", "calibration_error"), ONE._asdict())
    content = {
        "format": 1,
        "probe": json.loads(Probe.load(probe).card.to_json()),
        "judge": "exact",
        "sizes": {"segments": 40.0, "problems": 4.0},
        "after": ranking | errors,
        "before": ranking | errors,
        "signals": {"mean": ranking},
        "best_signal": "mean",
        "differences": ranking | {"auroc": {"value": -0.1, "low": None, "high": None}},
        "ceiling": ranking,
        "made": {"command": "semanticspec probe evaluate"},
    }
    (folder / "evaluation.json").write_text(json.dumps(content))
    (folder / "roc.png").write_bytes(b"PNG")
    return folder


def test_a_published_probe_is_a_repository_and_a_probe(tmp_path: Path, probe: Path, report: Path) -> None:
    folder = publish(probe, tmp_path / "published", report)
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
        "config.json",
        "model.safetensors",
        "README.md",
        "evaluation.json",
        "figures/roc.png",
    }
    assert Probe.load(folder).card == Probe.load(probe).card
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    head = yaml.safe_load(front)
    assert head["base_model"] == "Maker/Some-Model"
    assert head["library_name"] == "semanticspec"
    assert "| this probe | 0.912 [0.800, 0.950] | 0.912 [0.800, 0.950] |" in text
    assert "| probe − mean | -0.100 |" in text
    assert "(figures/roc.png)" in text
    again = publish(folder, folder, report)
    assert Probe.load(again).card == Probe.load(probe).card


def test_without_a_report_the_cards_figures_are_given(tmp_path: Path, probe: Path) -> None:
    text = (publish(probe, tmp_path / "published") / "README.md").read_text()
    assert "| auroc | 0.9 |" in text


def test_the_report_of_another_probe_is_refused(tmp_path: Path, report: Path) -> None:
    other = make_probe(widths=(3,))
    other.save(tmp_path / "other")
    with pytest.raises(ProbeError, match="report of another probe"):
        publish(tmp_path / "other", tmp_path / "published", report)
    assert not (tmp_path / "published").exists()


def test_a_folder_is_not_a_base_model(tmp_path: Path) -> None:
    make_probe(model_id="/some/folder").save(tmp_path / "probe")
    _, front, _ = (
        (publish(tmp_path / "probe", tmp_path / "published") / "README.md").read_text().split("---\n", 2)
    )
    assert "base_model" not in yaml.safe_load(front)


def test_a_published_probe_says_which_states_it_reads(tmp_path: Path) -> None:
    for name, changes, said in (
        (
            "inner",
            {"layer": 2, "norm_state": "pre", "pooling": "attention"},
            "| layer 2; learnt attention over",
        ),
        ("usual", {}, ""),
    ):
        make_untrained_probe(**changes).save(tmp_path / name)
        readme = (publish(tmp_path / name, tmp_path / f"published {name}") / "README.md").read_text()
        assert ("| states |" in readme) == bool(said)
        assert said in readme


class FakeHub:
    """Stands for `huggingface_hub.HfApi`: keeps what it is given."""

    made: list[tuple[str, dict[str, Any]]]
    files: set[str]

    def create_repo(self, repository: str, **options: Any) -> None:
        self.made.append((repository, options))

    def upload_folder(self, repo_id: str, folder_path: Path, **_: Any) -> Any:
        type(self).files = {path.name for path in Path(folder_path).rglob("*") if path.is_file()}
        return type("Commit", (), {"commit_url": f"https://hub/{repo_id}/commit/1"})()


def test_pushing_uploads_the_same_files(
    tmp_path: Path, probe: Path, report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", FakeHub)
    FakeHub.made = []
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert push(probe, "me/my-probe", report, private=True) == "https://hub/me/my-probe/commit/1"
    assert FakeHub.made == [("me/my-probe", {"private": True, "exist_ok": True})]
    assert FakeHub.files == {"config.json", "model.safetensors", "README.md", "evaluation.json", "roc.png"}
    assert not list(tmp_path.glob("semanticspec-publish-*"))
    result = CliRunner().invoke(
        probe_app, ["publish", "--probe", str(probe), "--to", "me/my-probe", "--push"]
    )
    assert result.exit_code == 0, result.exception
    assert len(FakeHub.made) == 2


def test_a_hub_that_refuses_is_told_in_one_line(probe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(FakeHub):
        def create_repo(self, repository: str, **_: Any) -> None:  # noqa: ARG002
            raise OSError("401\nUnauthorized")

    monkeypatch.setattr("huggingface_hub.HfApi", Refusing)
    with pytest.raises(ConfigError, match="401 Unauthorized") as caught:
        push(probe, "me/my-probe")
    assert "\n" not in str(caught.value)
