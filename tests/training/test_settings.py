"""The settings file of `semanticspec probe run`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner

from semanticspec.commands.probe import probe_app
from semanticspec.demo import settings_path
from semanticspec.errors import ConfigError
from semanticspec.training.settings import RunSettings, parse_settings, read_settings


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
        (
            "[colect]\n",
            "unknown key colect; expected one of pair, problems, collect, label, train, align, evaluate",
        ),
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
