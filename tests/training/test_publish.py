"""Publishing a probe, and finding one: folders, packaged names, the hub."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub.errors import RepositoryNotFoundError
from typer.testing import CliRunner

from semanticspec.commands.probe import probe_app
from semanticspec.config import DecodingConfig
from semanticspec.errors import ConfigError, ProbeError
from semanticspec.loading import load_pair
from semanticspec.probes import Probe
from semanticspec.probes import registry as finding
from semanticspec.probes.registry import PackagedProbe, fitting, locate, packaged_probes
from semanticspec.training.metrics import Interval
from semanticspec.training.publish import publish, push
from tests.support.collecting import info, make_pair, make_probe

ONE = Interval(0.9123, 0.8, 0.95)


@pytest.fixture
def probe(tmp_path: Path) -> Path:
    made = make_probe(model_names=("Maker/Some-Model",))
    made.save(tmp_path / "probe")
    return tmp_path / "probe"


@pytest.fixture
def report(tmp_path: Path, probe: Path) -> Path:
    """A report's folder with just what publishing reads; `test_evaluation` makes real ones."""
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


# --- finding -----------------------------------------------------------------------------------------------


@pytest.fixture
def pretrained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Packaged pairs beside the bundled one; the second shares the draft's probe of the first."""
    folder = tmp_path / "pretrained"
    pairs = {"bundled": json.loads(finding.PAIRS_FILE.read_text())["bundled"]}
    for role in ("target", "draft"):
        make_probe(role=role, model_names=("Maker/Some-Model",)).save(folder / "some-pair" / role)
    make_probe(model_names=("Maker/Other-Model",)).save(folder / "other-pair" / "target")
    draft = str(folder / "some-pair" / "draft")
    pairs["some-pair"] = {"target": str(folder / "some-pair" / "target"), "draft": draft}
    pairs["other-pair"] = {"target": str(folder / "other-pair" / "target"), "draft": draft}
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    monkeypatch.setattr(finding, "PAIRS_FILE", tmp_path / "pairs.json")
    return folder


def test_packaged_probes_are_listed(pretrained: Path) -> None:
    assert [(probe.pair, probe.role) for probe in packaged_probes()] == [
        ("bundled", "target"),
        ("bundled", "draft"),
        ("some-pair", "target"),
        ("some-pair", "draft"),
        ("other-pair", "target"),
        ("other-pair", "draft"),
    ]
    runner = CliRunner()
    listed = json.loads(runner.invoke(probe_app, ["list", "--json"]).stdout)
    assert listed[2] == {
        "pair": "some-pair",
        "role": "target",
        "model": "Maker/Some-Model",
        "estimator": "both",
        "judge": "exact",
        "auroc": 0.9,
        "path": str(pretrained / "some-pair" / "target"),
    }
    assert "some-pair" in runner.invoke(probe_app, ["list"]).stdout


def test_folders_packaged_names_and_the_hub(
    pretrained: Path, probe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str | None]] = []

    def snapshot_download(repository: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repository, revision))
        assert allow_patterns == ["config.json", "model.safetensors"]
        return str(probe)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert locate(str(probe), "target") == probe
    assert locate("some-pair", "draft") == pretrained / "some-pair" / "draft"
    assert locate("other-pair", "draft") == pretrained / "some-pair" / "draft"
    assert locate("other-pair", "target") == pretrained / "other-pair" / "target"
    assert locate("me/my-probe", "target") == locate("me/my-probe@v1.2", "target") == probe
    assert asked == [("me/my-probe", None), ("me/my-probe", "v1.2")]
    with pytest.raises(ProbeError, match=r"nor a packaged pair \(bundled, other-pair, some-pair\)"):
        locate("another-pair", "target")
    with pytest.raises(ProbeError, match="neither a folder nor a packaged pair"):
        locate("./me/my-probe", "target")
    assert len(asked) == 2


@pytest.mark.parametrize("offline", [True, False])
def test_what_the_hub_does_not_give_is_told_in_one_line(
    offline: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if offline:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    else:

        def missing(*_: Any, **__: Any) -> str:
            raise RepositoryNotFoundError.__new__(RepositoryNotFoundError, "404\n\nRepository Not Found")

        monkeypatch.setattr("huggingface_hub.snapshot_download", missing)
    with pytest.raises(ProbeError, match="cannot be downloaded from the hub") as caught:
        locate("nobody/none-such", "target")
    assert "\n" not in str(caught.value)
    with pytest.raises(ProbeError, match="nobody/none-such"):
        load_pair(target_probe="nobody/none-such")  # told before a model is loaded


def test_probes_that_fit_are_named_not_used(pretrained: Path) -> None:
    assert pretrained.is_dir()
    fits = info(model_id="/elsewhere/some-model")
    assert fitting(fits, "f00d", "target", "/elsewhere/some-model") == ["some-pair"]
    assert fitting(info(model_id="x"), "f00d", "target", "Other/Some-Model") == ["some-pair"]
    assert fitting(info(model_id="x"), "f00d", "target", "y") == []
    assert fitting(fits, "beef", "target", "Maker/Some-Model") == []
    pair = replace(make_pair(), fitting_probes=("some-pair",))
    with pytest.raises(ProbeError, match="--target-probe some-pair --draft-probe some-pair come with"):
        pair.check(DecodingConfig())
    with pytest.raises(ProbeError) as caught:
        make_pair().check(DecodingConfig())
    assert "come with" not in str(caught.value)


def test_every_listed_pair_is_in_the_package() -> None:
    listed = json.loads(finding.PAIRS_FILE.read_text())
    assert {(probe.pair, probe.role) for probe in packaged_probes()} == {
        (pair, role) for pair, probes in listed.items() for role in probes
    }
    assert list(listed) == ["bundled", "qwen2.5-coder-1.5b-0.5b", "qwen2.5-coder-1.5b-0.5b-portable"]
    portable, other = (locate(pair, "draft") for pair in list(listed)[1:])
    assert portable == other


def test_no_pictures_in_the_package() -> None:
    package = Path(finding.__file__).parents[1]
    assert not list(package.rglob("*.png"))
    for readme in package.rglob("README.md"):
        assert "figures/" not in readme.read_text()


@pytest.mark.parametrize("packaged", packaged_probes(), ids=lambda p: f"{p.pair}-{p.role}")
def test_what_comes_with_the_package_can_be_used_and_says_how_good_it_is(packaged: PackagedProbe) -> None:
    probe = Probe.load(packaged.path)  # the weights are those that the card tells of
    assert (probe.card.role, locate(packaged.pair, packaged.role)) == (packaged.role, packaged.path)
    content = json.loads((packaged.path / "evaluation.json").read_text())
    assert content["probe"]["weights_digest"] == probe.card.weights_digest
    figures = [content["after"], content["signals"][content["best_signal"]]]
    ours, signal = (f["auroc"]["value"] for f in figures)
    assert ours > signal, "a probe has to earn its place beside the log-probabilities of the same pass"
    told = (packaged.path / "README.md").read_text()
    assert f"| this probe | {ours:.3f} [" in told
    for text in (told, json.dumps(content), (packaged.path / "config.json").read_text()):
        assert str(Path.home()) not in text, "a path of the machine that made it"
