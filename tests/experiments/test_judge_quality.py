"""Measuring a judge on pairs with a known answer: sources of pairs, figures, the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from experiments.judge_quality.__main__ import judge_quality_command
from experiments.judge_quality.quality import (
    KnownPair,
    collected_pairs,
    demo_pairs,
    judge_pairs,
    measure,
    read_pairs,
)
from semanticspec.demo.exact_judge import ExactJudge
from semanticspec.errors import ConfigError, ProbeError
from semanticspec.training.data.storage import Collection, ContextRecord, SegmentRecord, Shard
from semanticspec.training.labels.judges.numeric import NumericJudge
from tests.support.collecting import make_manifest
from tests.support.judging import ask


def test_quality_by_hand() -> None:
    truth = [True, True, True, False, False]
    pairs = [KnownPair(ask("a", "b"), same, "same" if same else "not") for same in truth]
    quality = measure(pairs, [True, True, False, True, False])
    assert quality.precision.value == quality.recall.value == quality.f1.value == pytest.approx(2 / 3)
    assert quality.accuracy.value == pytest.approx(0.6)
    assert quality.by_kind == {"not": (0.5, 2), "same": (pytest.approx(2 / 3), 3)}
    assert 0 <= quality.accuracy.low < 0.6 < quality.accuracy.high <= 1
    assert measure(pairs, [False] * 5).precision.value == 0
    with pytest.raises(ConfigError, match="and pairs that do not"):
        measure(pairs[:3], [True] * 3)


def test_demo_pairs_are_what_they_say() -> None:
    pairs = demo_pairs(80)
    assert pairs == demo_pairs(80)
    assert pairs != demo_pairs(80, seed=1)
    assert all(pair.question.first != pair.question.second for pair in pairs)
    assert all(pair.same for pair in pairs if pair.kind == "reworded")
    assert not any(pair.same for pair in pairs if pair.kind.startswith("wrong"))
    assert {pair.kind for pair in pairs} == {
        "reworded",
        "wrong number",
        "wrong operation",
        "wrong person",
        "another step",
    }
    quality = measure(pairs, judge_pairs(ExactJudge(), pairs))
    assert quality.accuracy.value == 1.0
    assert quality.num_same >= 40


def test_pairs_that_models_wrote(tmp_path: Path) -> None:
    collection = Collection(tmp_path)
    collection.open(make_manifest())
    texts = ("Ana starts with 5 pens.", "At the start, Ana has 5 pens.", "Ben starts with 5 pens.", "no step")
    segments = tuple(SegmentRecord("0", "target", text, (1,), 2, "stop", (-1.0,)) for text in texts)
    states = torch.zeros(len(segments), 2)
    context = ContextRecord("0", "target", "so far")
    collection.write(Shard("1", "prompt", (context,), segments, states, states.clone()))
    pairs = collected_pairs(tmp_path, 3)
    assert sorted(pair.same for pair in pairs) == [False, False, True]
    quality = measure(pairs, judge_pairs(NumericJudge(), pairs))
    assert quality.precision.value == pytest.approx(1 / 3)
    with pytest.raises(ConfigError, match="3 pairs of readable segments"):
        collected_pairs(tmp_path, 4)
    with pytest.raises(ProbeError, match="no collection"):
        collected_pairs(tmp_path / "none", 4)


def test_pair_files(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"a": "1", "b": "one", "label": "entailment", "score": 4.9},
        {"a": "1", "b": "some", "label": "entailment", "score": 4.0},
        {"a": "1", "b": "2", "label": "neutral", "score": 3.0},
        {"a": "1", "b": "3", "same": False},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs = read_pairs(path, 2, least_score=4.5)
    assert [pair.same for pair in pairs] == [True, False]
    assert pairs[0].question == ask("1", "one")
    assert {pair.kind for pair in read_pairs(path, 4)} == {"entailment", "neutral", "different"}
    with pytest.raises(ConfigError, match="4 pairs need 2 of each"):
        read_pairs(path, 4, least_score=4.5)
    path.write_text('{"a": 1}\n')
    with pytest.raises(ConfigError, match="line 1"):
        read_pairs(path, 2)
    with pytest.raises(ConfigError, match="cannot read pairs from"):
        read_pairs(tmp_path / "none", 2)


def test_the_command_writes_its_figures(tmp_path: Path) -> None:
    out = tmp_path / "quality.json"
    app = typer.Typer()
    app.command()(judge_quality_command)
    result = CliRunner().invoke(app, ["--judge", "exact", "--num-pairs", "40", "--out", str(out)])
    assert result.exit_code == 0, (result.output, result.exception)
    report = json.loads(out.read_text())
    assert report["accuracy"] == [1.0, 1.0, 1.0]
    assert (report["judge"], report["num_pairs"], report["pairs"]) == ("exact", 40, "demo")
