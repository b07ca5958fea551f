"""Small networks run on one CPU thread, whatever torch's default: other processes then cannot slow them down."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from semanticspec.engines.runtime.threads import SMALL_MODEL_PARAMETERS, cpu_threads_for
from semanticspec.engines.transformers.engine import TransformersEngine
from semanticspec.engines.transformers.model_runner import ModelRunner
from semanticspec.errors import ModelError
from tests.support.collecting import make_probe, make_reading
from tests.support.tiny_models import SIZES, save_model


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def model(tmp_path: Path) -> str:
    save_model(tmp_path / "model", LlamaConfig(**SIZES))
    return str(tmp_path / "model")


@pytest.mark.parametrize(("threads", "expected"), [(None, 1), (3, 3)])
async def test_the_load_time_check_runs_on_the_engines_own_threads(
    model: str, threads: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int]] = []
    forward = ModelRunner.forward

    def recorded(self: ModelRunner, *arguments: object) -> object:
        seen.append((threading.current_thread().name, torch.get_num_threads()))
        return forward(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ModelRunner, "forward", recorded)
    engine = TransformersEngine.load(model, device="cpu", threads=threads)
    assert len(seen) > 1, "the check runs the model"
    assert set(seen) == {("engine_0", expected)}
    assert torch.get_num_threads() == 2
    await engine.aclose()


def test_a_failed_check_raises_its_error_and_leaves_no_thread(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: ModelRunner) -> None:
        raise ModelError("this model cannot continue from a KV cache")

    monkeypatch.setattr(ModelRunner, "_self_test", fails)
    before = set(threading.enumerate())
    with pytest.raises(ModelError, match="cannot continue from a KV cache"):
        TransformersEngine.load(model, device="cpu")
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)
        assert not thread.is_alive()


def test_a_small_probe_runs_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    probe, reading = make_probe(), make_reading(1)
    expected, seen = probe.estimate_many([reading]), []
    forward = probe.network.forward

    def recorded(*arguments: torch.Tensor) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return forward(*arguments)

    monkeypatch.setattr(probe.network, "forward", recorded)
    assert [probe.estimate(reading)] == expected
    assert seen == [1]
    assert torch.get_num_threads() == 2


def test_large_networks_keep_torchs_threads() -> None:
    with cpu_threads_for(SMALL_MODEL_PARAMETERS):
        assert torch.get_num_threads() == 2
