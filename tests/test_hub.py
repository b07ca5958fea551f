"""The hub is found out to be unreachable in a few seconds, in one line; what is in the cache still loads."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from semanticspec import hub
from semanticspec.errors import ConfigError, ModelError, ProbeError
from semanticspec.hub import hub_or_cache, why_unreachable
from semanticspec.loading import load_pair
from semanticspec.probes.registry import locate
from semanticspec.problems.hub import HubName, hub_rows

MODEL = "nobody/no-such-model"


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache, and no connection."""

    def refuse() -> None:
        raise OSError("[Errno -2] Name or service not known\nsecond line")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "_ask_hub", refuse)


@pytest.mark.usefixtures("unreachable")
def test_an_unreachable_hub_is_one_line_for_models_probes_and_data_sets(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    start = time.monotonic()
    said = r"^the Hugging Face hub cannot be reached \(\[Errno -2\] Name or service not known\)[^\n]*$"
    with pytest.raises(ModelError, match=said):
        load_pair(MODEL, MODEL)
    with pytest.raises(ProbeError, match=said):
        locate("nobody/no-such-probe", "target")
    with pytest.raises(ConfigError, match=said):
        next(iter(hub_rows(HubName("nobody/no-such-data", None, None))))
    assert time.monotonic() - start < 5
    assert capfd.readouterr() == ("", "")


def test_a_hub_that_does_not_answer_is_waited_for_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(hub, "_ask_hub", lambda: released.wait(60))
    monkeypatch.setattr(hub, "TIMEOUT_S", 0.2)
    start = time.monotonic()
    assert why_unreachable() == "no answer within 0.2 s"
    assert time.monotonic() - start < 2
    released.set()


def test_the_time_limit_leaves_room_within_five_seconds() -> None:
    assert hub.TIMEOUT_S < 5


@pytest.mark.usefixtures("unreachable")
def test_what_is_in_the_cache_loads_without_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(hub, "_is_cached", lambda name: name == MODEL)
    with hub_or_cache([MODEL]):
        assert constants.HF_HUB_OFFLINE  # no library tries the network
    assert not constants.HF_HUB_OFFLINE
    said = "'nobody/other' is neither a local folder nor in the cache"
    with pytest.raises(ModelError, match=said), hub_or_cache([MODEL, "nobody/other"]):
        pass


def test_a_local_model_does_not_ask_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "why_unreachable", lambda: pytest.fail("asked"))
    (tmp_path / "model.gguf").touch()
    with hub_or_cache([str(tmp_path), str(tmp_path / "model.gguf"), "/no/such/folder"]):
        pass


def test_offline_mode_does_not_ask_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "why_unreachable", lambda: pytest.fail("asked"))
    with hub_or_cache([MODEL]):
        pass
