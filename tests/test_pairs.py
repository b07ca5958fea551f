"""Prepared pairs: packaged, in a folder, on the hub."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from semanticspec import demo
from semanticspec.errors import ConfigError
from semanticspec.loading import load_pair
from semanticspec.pairs import PAIR_FILE, find_pair

MODELS = {"target": str(demo.target_path()), "draft": str(demo.draft_path())}


def write_pair(folder: Path, **content: object) -> Path:
    """The bundled pair as a folder of a prepared pair."""
    for role, source in (("target", demo.target_probe_path()), ("draft", demo.draft_probe_path())):
        shutil.copytree(source, folder / f"{role}-probe")
    (folder / PAIR_FILE).write_text(json.dumps({**MODELS, **content}))
    return folder


def test_a_folder_gives_models_and_probes(tmp_path):
    folder = write_pair(tmp_path / "pair")
    pair = load_pair(pair=str(folder))
    assert pair.target_probe is not None
    assert pair.draft_probe is not None
    assert pair.target.engine.info.model_id == MODELS["target"]
    assert pair.draft.engine.info.adapter == ""


def test_what_is_given_counts_more(tmp_path):
    folder = write_pair(tmp_path / "pair", draft="nobody/nothing")
    pair = load_pair(pair=str(folder), draft=MODELS["draft"])
    assert pair.draft.engine.info.model_id == MODELS["draft"]


def test_a_packaged_pair_has_the_hub_names_of_its_models():
    found = find_pair("qwen2.5-coder-1.5b-0.5b")
    assert (found.target, found.draft) == (
        "Qwen/Qwen2.5-Coder-1.5B-Instruct",
        "Qwen/Qwen2.5-Coder-0.5B-Instruct",
    )
    assert found.target_probe == found.draft_probe == "qwen2.5-coder-1.5b-0.5b"


def test_a_pair_that_lacks_its_adapter_is_refused(tmp_path):
    folder = write_pair(tmp_path / "pair", adapter="abc")
    with pytest.raises(ConfigError, match="names an adapter, but there is no folder"):
        find_pair(str(folder))


def test_a_broken_card_is_refused(tmp_path):
    folder = write_pair(tmp_path / "pair")
    (folder / PAIR_FILE).write_text('{"target": 1}')
    with pytest.raises(ConfigError, match=r"pair\.json"):
        find_pair(str(folder))


@pytest.mark.parametrize("name", ["nobody", "./missing", "a/b/c"])
def test_an_unknown_pair_is_one_line(name):
    with pytest.raises(ConfigError, match="neither a packaged pair"):
        find_pair(name)


def test_a_pair_is_downloaded_from_the_hub(tmp_path, monkeypatch):
    folder = write_pair(tmp_path / "pair")
    asked = []

    def download(repository: str, revision: str | None) -> str:
        asked.append((repository, revision))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    monkeypatch.setattr("semanticspec.hub.why_unreachable", lambda: "")
    found = find_pair("someone/pair@v1")
    assert asked == [("someone/pair", "v1")]
    assert found.target == MODELS["target"]
