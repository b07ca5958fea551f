"""Finding probes: folders, packaged pairs, the hub."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import RepositoryNotFoundError
from typer.testing import CliRunner

from semanticspec.commands.probe import probe_app
from semanticspec.config import DecodingConfig
from semanticspec.engines.base import StateSpec
from semanticspec.errors import ProbeError
from semanticspec.loading import load_pair
from semanticspec.probes import Probe
from semanticspec.probes import registry as finding
from semanticspec.probes.registry import PackagedProbe, fitting, locate, packaged_probes
from tests.support.collecting import (
    info,
    make_pair,
    make_probe,
)


@pytest.fixture
def probe(tmp_path: Path) -> Path:
    made = make_probe(model_names=("Maker/Some-Model",))
    made.save(tmp_path / "probe")
    return tmp_path / "probe"


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
    made_for = {"some-pair": "Maker/Some-Model", "other-pair": "Maker/Other-Model"}
    for name in ("/elsewhere/some-model", "/a/folder/with/another/name", "x.gguf"):
        assert fitting(info(model_id=name), "f00d", "target") == made_for
    assert fitting(info(model_id="Maker/Some-Model"), "beef", "target") == {}
    assert fitting(replace(info(), hidden_size=99), "f00d", "target") == {}
    assert fitting(replace(info(), num_layers=99), "f00d", "target") == {}
    pair = replace(make_pair(), fitting_probes={"some-pair": "A and B"})
    with pytest.raises(
        ProbeError,
        match=r"--target-probe some-pair --draft-probe some-pair come with .* if these are A and B;",
    ):
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


def test_packaged_probes_are_as_they_were() -> None:
    for packaged in packaged_probes():
        probe = Probe.load(packaged.path)
        assert probe.card.states == StateSpec()
        assert "query" not in probe.network.state_dict()
