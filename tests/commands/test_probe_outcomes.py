"""`semanticspec probe outcomes`, and training on its labels."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from semanticspec.benchmark.tasks import TASKS, Task, register_task
from semanticspec.commands.probe import probe_app
from semanticspec.decoding.pair import Model
from semanticspec.demo.exact_judge import ExactJudge
from semanticspec.engines.scripted import ScriptedEngine
from semanticspec.errors import ConfigError
from semanticspec.probes.probe import Probe
from semanticspec.training.data.collect import collect
from semanticspec.training.labels.label import label
from tests.support.collecting import CONFIG, make_pair, make_vocabulary, many_problems
from tests.support.outcomes import LetterGrader, repeats_the_last_letter


@pytest.fixture(autouse=True)
def letters() -> Iterator[None]:
    register_task(Task("letters", make_grader=LetterGrader))
    yield
    del TASKS["letters"]


def run(command: str) -> Result:
    return CliRunner().invoke(probe_app, command.split())


def test_outcomes_are_measured_compared_and_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    data, loaded = tmp_path / "data", []

    def load_model(*names: Any, **options: Any) -> Model:
        loaded.append((names, options))
        return Model(ScriptedEngine(repeats_the_last_letter, 6), make_vocabulary())

    monkeypatch.setattr("semanticspec.loading.load_model", load_model)
    config = replace(CONFIG, max_contexts=2)
    label(asyncio.run(collect(make_pair(), many_problems(), config, data)), ExactJudge())
    command = f"outcomes --data {data} --task letters --max-new-tokens 6"
    assert run(f"{command} --num-problems 4").exit_code == 0
    result = run(f"{command} --judge exact")
    assert result.exit_code == 0, (result.output, result.exception)
    told = capfd.readouterr().err + result.output
    assert "24 problems, 4 of them measured before" in told
    assert "Outcome against the judge exact" in told
    assert "no two of the target's answers agree" in told
    assert loaded[0] == (("scripted",), {"engine": "auto", "dtype": "auto", "device": "auto"})
    assert run(f"{command} --judge exact").exit_code == 0
    assert len(loaded) == 2  # nothing is left to measure
    trained = run(
        f"train --role target --label outcome --data {data} --out {tmp_path / 'probe'} --widths 8 --max-epochs 2"
    )
    assert trained.exit_code == 0, (trained.output, trained.exception)
    assert Probe.load(tmp_path / "probe").card.judge == "outcome"


def test_problems_that_were_not_collected_on_are_refused_before_loading(tmp_path: Path) -> None:
    data = tmp_path / "data"
    asyncio.run(collect(make_pair(), many_problems()[:1], CONFIG, data))
    (tmp_path / "other.jsonl").write_text(json.dumps({"id": "problem 0", "prompt": "other"}) + "\n")
    result = run(f"outcomes --data {data} --task letters --problems {tmp_path / 'other.jsonl'}")
    assert isinstance(result.exception, ConfigError)
    assert "has another text in the collection" in str(result.exception)
