"""`semanticspec probe ...`: options of the stages. What the stages do: tests/training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from semanticspec.engines.base import StateSpec


def test_collect_loads_the_pair_it_is_told(semanticspec, monkeypatch, tmp_path):
    loaded: list[Any] = []

    def load_models(*args: Any, **kwargs: Any) -> None:
        loaded.extend([args, kwargs])
        raise KeyboardInterrupt

    monkeypatch.setattr("semanticspec.training.stages.load_models", load_models)
    models = ["--target", "t", "--draft", "d", "--engine", "vllm", "--draft-engine", "llama-cpp"]
    places = ["--target-dtype", "float32", "--device", "cpu", "--draft-device", "cuda:1"]
    states = ["--target-layer", "3", "--pooling", "last"]
    done = semanticspec("probe", "collect", "--out", str(tmp_path), *models, *places, *states)
    assert done.returncode == 130
    assert loaded == [
        (
            "t",
            "d",
            {"target": StateSpec(3, "last"), "draft": StateSpec(-1, "last")},
            {"target": "vllm", "draft": "llama-cpp"},
        ),
        {"dtypes": {"target": "float32", "draft": "auto"}, "devices": {"target": "cpu", "draft": "cuda:1"}},
    ]


def test_list_as_json_names_both_probes_of_every_packaged_pair(semanticspec):
    listed = json.loads(semanticspec("probe", "list", "--json").stdout)
    assert {(probe["pair"], probe["role"]) for probe in listed} >= {
        ("bundled", "target"),
        ("bundled", "draft"),
    }
    assert set(listed[0]) == {"pair", "role", "model", "estimator", "judge", "auroc", "path"}


def test_list_cuts_no_name_that_one_has_to_copy(semanticspec, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = semanticspec("probe", "list").stdout.splitlines()
    assert "qwen2.5-coder-1.5b-0.5b-portable" in lines
    assert any("draft: Qwen/Qwen2.5-Coder-0.5B-Instruct (" in line for line in lines)
    assert sum(Path(line.strip()).is_dir() for line in lines) == 6


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("train --role judge --data data --out out", "--role is 'judge'; expected target, draft or joint"),
        ("train --role draft --data data --out out --widths wide", "--widths is 'wide'"),
        ("train --role draft --data data --out out --label outcome", "--label outcome is for --role target"),
        (
            "train --role target --data data --out out --label right",
            "--label is 'right'; expected meaning or",
        ),
        ("collect --preset fast --out out", "the preset is 'fast'; expected one of full, one-context"),
        ("collect --answers nowhere --traces solution --out out", "got --traces and --answers"),
        ("collect --answers nowhere --out out", "nowhere holds no answers of the target"),
        ("evaluate --data data --probe bundled --out out --role judge", "--role is 'judge'"),
        ("publish --probe bundled --to out --role judge", "--role is 'judge'"),
        ("label --data data --judge best", "'best'"),
        ("label --data data --judge numeric --judge-url http://localhost/v1", "--judge-url"),
        ("run nowhere.toml --out out", "nowhere.toml"),
        ("collect --out out --problems nowhere.jsonl", "nowhere.jsonl"),
        ("collect --out out --pooling max", "max"),
    ],
)
def test_options_that_do_not_fit_are_one_line_and_exit_code_2(
    semanticspec, command, message, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    done = semanticspec("probe", *command.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
