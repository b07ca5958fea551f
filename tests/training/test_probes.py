"""Probes: files, labels, splits, figures, training, and collecting that survives a kill."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from math import isnan
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from semanticspec.commands.probe import probe_app
from semanticspec.demo.judge import ExactJudge
from semanticspec.engines.base import Capabilities
from semanticspec.errors import ConfigError, ProbeError
from semanticspec.probes import Probe
from semanticspec.probes.features import FEATURES, TokenSignals, compute_features
from semanticspec.records import Reading
from semanticspec.training.data.collect import collect
from semanticspec.training.data.examples import gather, split_of
from semanticspec.training.data.problems import ProblemText, read_problems
from semanticspec.training.data.storage import Collection, Shard
from semanticspec.training.labels.label import count_labels, label, meanings_of, paired_shares
from semanticspec.training.metrics import area_under_roc, mean_absolute_error, point_estimate, r_squared
from semanticspec.training.train import TrainConfig, fit, logits_of, train
from tests.support.collecting import (
    CONFIG,
    HIDDEN,
    PROBLEMS,
    content,
    info,
    make_pair,
    make_probe,
    make_reading,
    run_collect,
    segment,
    synthetic,
)

# --- the probe and its files -------------------------------------------------------------------------------


def test_import_loads_no_torch() -> None:
    code = "import sys, semanticspec.probes, semanticspec.commands.probe; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


@pytest.mark.parametrize("changes", [{}, {"features": ()}, {"use_state": False}, {"widths": (16, 8, 4)}])
def test_save_and_load_give_the_same_probe(tmp_path: Path, changes: dict[str, Any]) -> None:
    probe = make_probe(**changes)
    probe.network.fit_scaler(torch.randn(50, probe.network.num_inputs) * 3 + 1)
    probe.save(tmp_path / "probe")
    loaded = Probe.load(tmp_path / "probe")
    assert replace(loaded.card, weights_digest="") == probe.card
    readings = [make_reading(seed) for seed in range(10)]
    assert loaded.estimate_many(readings) == probe.estimate_many(readings)
    assert sorted(path.name for path in (tmp_path / "probe").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


def test_estimates_agree_alone_and_together_and_are_clamped() -> None:
    probe = make_probe()
    readings = [make_reading(seed) for seed in range(10)]
    together = probe.estimate_many(readings)
    assert together == pytest.approx([probe.estimate(reading) for reading in readings], abs=1e-6)
    last = probe.network.layers[-1]
    assert isinstance(last, torch.nn.Linear)
    last.bias.fill_(-100.0)
    assert probe.estimate(readings[0]) == 1 / 40
    last.bias.fill_(100.0)
    assert probe.estimate(readings[0]) == 1.0
    assert probe.estimate_many([]) == []


def test_a_state_of_another_size_is_refused() -> None:
    with pytest.raises(ProbeError, match="size 6"):
        make_probe().estimate(Reading((-1.0,), torch.zeros(7)))


def test_a_probe_of_entropies_is_refused_where_there_are_none() -> None:
    probe = make_probe(role="target", features=("mean", "entropy"))
    gives = info(capabilities=Capabilities(entropies=True))
    assert probe.check(gives, probe.card.fingerprint, "target") == []
    with pytest.raises(ProbeError, match="reads entropies, which the engine of some/model does not give"):
        probe.check(info(), probe.card.fingerprint, "target")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": 7}, "hidden size 6 instead of 7"),
        ({"num_layers": 3}, "number of layers 2 instead of 3"),
        ({"norm_state": "pre"}, "norm state post instead of pre"),
    ],
)
def test_check_names_what_differs(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ProbeError, match=said) as caught:
        make_probe().check(info(**changes), "f00d", "target")
    assert "\n" not in str(caught.value)


def test_check_of_tokenizer_role_and_weights() -> None:
    probe = make_probe()
    assert probe.check(info(model_id="/elsewhere"), "f00d", "target") == []
    assert probe.check(info(revision=""), "f00d", "target") == []
    (warning,) = probe.check(info(revision="def"), "f00d", "target")
    assert "abc" in warning
    with pytest.raises(ProbeError, match="tokenizer"):
        probe.check(info(), "beef", "target")
    with pytest.raises(ProbeError, match="role"):
        probe.check(info(), "f00d", "draft")


def test_broken_folders_are_told(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="no probe folder"):
        Probe.load(tmp_path / "nowhere")
    folder = tmp_path / "probe"
    make_probe().save(folder)
    weights, card = (
        (folder / "model.safetensors").read_bytes(),
        json.loads((folder / "config.json").read_text()),
    )

    def load_with(**content: Any) -> Any:
        (folder / "config.json").write_text(json.dumps({**card, **content}))
        return Probe.load(folder)

    for changed, said in (
        ({"format": 2}, "update semanticspec"),
        ({"colour": "red"}, "unknown key colour; expected one of role, model_id"),
        ({"widths": "wide"}, "widths is 'wide'; expected a valid array"),
        ({"widths": [0]}, "widths.0 is 0; expected greater than or equal to 1"),
        ({"num_samples": 1}, "num_samples is 1; expected greater than or equal to 2"),
        ({"role": "judge"}, "role is 'judge'; expected 'draft' or 'target'"),
        ({"features": ["smell"]}, "unknown probe feature 'smell'"),
        ({"widths": [9, 4]}, "does not hold the network"),
        ({"weights_digest": "0"}, "not the file"),
    ):
        with pytest.raises(ProbeError, match=said) as caught:
            load_with(**changed)
        assert str(folder) in str(caught.value)
        assert "\n" not in str(caught.value)
    load_with()
    (folder / "model.safetensors").write_bytes(weights[:100])
    with pytest.raises(ProbeError, match="broken or replaced"):
        Probe.load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ProbeError, match="JSON"):
        Probe.load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ProbeError, match=r"config\.json cannot be read"):
        Probe.load(folder)


def test_features_by_hand() -> None:
    values = (-0.1, -3.0, -0.2, -1.0, 0.0)
    names = (
        "mean",
        "sum",
        "minimum",
        "second_lowest",
        "below_half",
        "below_tenth",
        "place_of_minimum",
        "last",
    )
    expected = [-0.86, -4.3, -3.0, -1.0, 2.0, 1.0, 0.2, 0.0]
    assert compute_features(names, TokenSignals(values)) == pytest.approx(expected)
    impossible = TokenSignals((-1e9,), (90,), (0.0,))
    assert all(isinstance(value, float) for value in compute_features(tuple(FEATURES), impossible))
    with pytest.raises(ConfigError, match="unknown probe feature"):
        TrainConfig(features=("smell",))


# --- labels ------------------------------------------------------------------------------------------------


def test_labels_by_hand() -> None:
    """Target: A A A B of n = 4 (A in two wordings); draft: A A B C C of n = 5."""
    segments = [
        segment("target", "A", 2),
        segment("target", "a", 1),
        segment("target", "B", 1),
        segment("draft", "A", 2),
        segment("draft", "B", 1),
        segment("draft", "C", 2),
    ]
    meanings = [0, 0, 1, 0, 1, 2]
    third = pytest.approx
    assert count_labels(segments, meanings, "target", "unbiased") == third([2 / 3, 2 / 3, 0, 0.75, 0.25, 0])
    assert count_labels(segments, meanings, "draft", "unbiased") == [None, None, None, 0.25, 0.0, 0.25]
    assert count_labels(segments, meanings, "target", "paper") == [0.75, 0.75, 0.25, None, None, None]
    assert count_labels(segments, meanings, "draft", "paper") == [None, None, None, 0.4, 0.2, 0.4]


def test_labels_count_within_a_context() -> None:
    segments = [segment("target", "A", 2), segment("target", "A", 2, "1"), segment("draft", "A", 1, "1")]
    assert count_labels(segments, [0, 0, 0], "target", "unbiased") == [1.0, 1.0, 1.0]
    assert count_labels([segment("target", "A")], [0], "target", "unbiased") == [None]


def test_halves() -> None:
    assert paired_shares([0, 0, 1, 0], 0, [0, 1, 2, 3]) == (1.0, 0.5)


# --- splits and figures ------------------------------------------------------------------------------------


def test_split_is_by_problem() -> None:
    names = [f"problem {i}" for i in range(3000)]
    splits = [split_of(name) for name in names]
    assert splits == [split_of(name) for name in names]
    assert [splits.count(split) / 3000 for split in ("train", "validation", "test")] == pytest.approx(
        [0.6, 0.2, 0.2], abs=0.03
    )
    examples = synthetic(300)
    parts = [set(examples.of_split(split).problem_ids) for split in ("train", "validation", "test")]
    assert all(parts)
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]


def test_auroc_against_all_pairs() -> None:
    generator = torch.Generator().manual_seed(1)
    scores = torch.randint(0, 6, (60,), generator=generator).float()
    positive = torch.rand(60, generator=generator) < 0.4
    weights = torch.randint(1, 4, (60,), generator=generator).float()
    pairs = [
        (float(a > b) + 0.5 * float(a == b), float(w * v))
        for a, w, p in zip(scores, weights, positive, strict=True)
        for b, v, q in zip(scores, weights, positive, strict=True)
        if p and not q
    ]
    expected = sum(hit * weight for hit, weight in pairs) / sum(weight for _, weight in pairs)
    assert point_estimate(area_under_roc, scores, positive, weights) == pytest.approx(expected)
    assert point_estimate(area_under_roc, torch.arange(4.0), torch.tensor([False, False, True, True])) == 1.0
    assert point_estimate(area_under_roc, torch.ones(4), torch.tensor([False, True, True, True])) == 0.5
    assert isnan(point_estimate(area_under_roc, torch.ones(2), torch.tensor([True, True])))


def test_errors_by_hand() -> None:
    estimates, labels = torch.tensor([0.0, 0.5]), torch.tensor([0.0, 1.0])
    assert point_estimate(r_squared, estimates, labels) == pytest.approx(0.5)
    assert point_estimate(mean_absolute_error, estimates, labels) == pytest.approx(0.25)


# --- training ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["bce", "mse"])
def test_training_learns_and_is_repeatable(loss: Any) -> None:
    examples = synthetic(150)
    config = TrainConfig(widths=(32, 16), features=("mean",), loss=loss, max_epochs=30)
    training, validation, test = (examples.of_split(split) for split in ("train", "validation", "test"))
    before = torch.random.get_rng_state()
    network = fit(training, validation, "target", config).network
    assert torch.equal(torch.random.get_rng_state(), before)
    logits = logits_of(network, test, config)
    assert point_estimate(area_under_roc, logits, test.labels >= 0.5) > 0.9
    again = fit(training, validation, "target", config).network
    assert torch.equal(logits, logits_of(again, test, config))


# --- collecting --------------------------------------------------------------------------------------------


def test_collected_rows(tmp_path: Path) -> None:
    collection = run_collect(tmp_path)
    shards = list(collection)
    assert {shard.problem_id for shard in shards} == {problem.problem_id for problem in PROBLEMS}
    origins = [context.origin for shard in shards for context in shard.contexts]
    assert origins.count("loop") >= len(origins) / 3
    for shard in shards:
        assert len({context.text for context in shard.contexts}) == len(shard.contexts)
        for context in shard.contexts:
            rows = [row for row in shard.segments if row.context_id == context.context_id]
            for author in ("target", "draft"):
                own = [row for row in rows if row.author == author]
                assert sum(row.count for row in own) == CONFIG.num_samples
                assert len({row.token_ids for row in own}) == len(own)
            assert all(len(row.target_logprobs) == len(row.token_ids) for row in rows)
            assert all(bool(row.draft_logprobs) == (row.author == "draft") for row in rows)
        assert shard.target_states.shape == shard.draft_states.shape == (len(shard.segments), 6)
    first = next(row for row in shards[0].segments if row.author == "draft" and row.text.startswith("a"))
    state = shards[0].target_states[shards[0].segments.index(first)]
    assert state[0] == pytest.approx(0.35)  # mean of 0.7 before the letter and 0 behind it: the target's own


def test_a_kill_in_the_middle_loses_and_doubles_nothing(tmp_path: Path) -> None:
    whole = run_collect(tmp_path / "whole")
    finished: list[Any] = []

    def stop_after_three(shard: Shard | None) -> None:
        finished.append(shard)
        if len(finished) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_collect(tmp_path / "part", on_progress=stop_after_three)
    part = Collection(tmp_path / "part")
    assert 3 <= len(part) < len(PROBLEMS)
    half = next(iter((part.folder / "problems").glob("*.parquet")))  # killed between its two files
    half.unlink()
    kept = len(part)
    seen: list[Any] = []
    run_collect(tmp_path / "part", on_progress=seen.append)
    assert seen.count(None) == kept
    assert content(part.folder) == content(whole.folder)


def test_other_settings_need_another_folder(tmp_path: Path) -> None:
    run_collect(tmp_path, PROBLEMS[:1])
    other = replace(CONFIG, num_samples=4)
    with pytest.raises(ProbeError, match="other config"):
        asyncio.run(collect(make_pair(), PROBLEMS, other, tmp_path))
    with pytest.raises(ConfigError, match="same id"):
        run_collect(tmp_path, [PROBLEMS[0], PROBLEMS[0]])


def test_contexts_can_be_limited(tmp_path: Path) -> None:
    config = replace(CONFIG, max_contexts=3)
    collection = asyncio.run(collect(make_pair(), PROBLEMS, config, tmp_path))
    for shard in collection:
        assert len(shard.contexts) <= 3
        assert sum(context.origin == "loop" for context in shard.contexts) >= len(shard.contexts) / 3


def test_a_prompt_without_room_is_skipped(tmp_path: Path) -> None:
    (shard,) = run_collect(tmp_path, [ProblemText("long", "a" * 5000)])
    assert "5000 tokens" in shard.skipped
    assert not shard.segments


def test_from_collection_to_probe(tmp_path: Path) -> None:
    """The whole way; the exact judge cannot read these texts, so they mean the same when they are equal."""
    problems = [ProblemText(f"problem {i}", "a") for i in range(20)]
    collection = run_collect(tmp_path / "data", problems)
    with pytest.raises(ProbeError, match="no labels"):
        train(collection, "target", "exact", TrainConfig())
    meanings = label(collection, ExactJudge())
    assert meanings == label(collection, ExactJudge())
    shard = next(iter(collection))
    assert meanings[shard.problem_id] == meanings_of(shard, ExactJudge())
    for role in ("target", "draft"):
        config = TrainConfig(widths=(8,), features=("sum",), max_epochs=3)
        probe = train(collection, role, "exact", config)  # type: ignore[arg-type]
        assert probe.card.metrics["num_segments"] > 0
        assert probe.card.num_samples == CONFIG.num_samples
        model = getattr(make_pair(), role)
        assert probe.check(model.engine.info, model.vocabulary.fingerprint, role) == []
        rows = gather(collection, meanings, role, "unbiased")  # type: ignore[arg-type]
        assert bool(rows.drafted.all()) == (role == "draft")
    assert not gather(collection, meanings, "target", "paper").drafted.any()


# --- the command line --------------------------------------------------------------------------------------


def test_problem_files(tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text('{"id": 7, "problem": "one"}\n\n{"question": "two"}\n')
    assert read_problems(str(path)) == [("7", "one", ""), ("2", "two", "")]
    assert read_problems(str(path), 1) == [("7", "one", "")]
    path.write_text('{"text": 1}\n')
    with pytest.raises(ConfigError, match="line 1"):
        read_problems(str(path))
    with pytest.raises(ConfigError, match="cannot read problems from"):
        read_problems(str(tmp_path / "none"))


def test_demo_problems_leave_the_test_split_alone() -> None:
    from semanticspec.demo.grammar import split_of as demo_split_of

    assert {demo_split_of(problem.prompt) for problem in read_problems("demo", 30)} == {"train", "validation"}


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semanticspec.training.stages.load_models", lambda *_, **__: make_pair())
    problems = tmp_path / "problems.jsonl"
    problems.write_text("".join(json.dumps({"id": i, "prompt": "a"}) + "\n" for i in range(20)))
    data, out, runner = str(tmp_path / "data"), tmp_path / "probe", CliRunner()
    for command in (
        ["collect", "--out", data, "--problems", str(problems), "--samples", "6", "--max-trace-tokens", "40"],
        ["label", "--data", data],
        [
            "train",
            "--role",
            "target",
            "--data",
            data,
            "--out",
            str(out),
            "--widths",
            "8",
            "--features",
            "all",
        ],
    ):
        result = runner.invoke(probe_app, command)
        assert result.exit_code == 0, (result.output, result.exception)
    assert Probe.load(out).card.features == tuple(FEATURES)
    result = runner.invoke(probe_app, ["train", "--role", "x", "--data", data, "--out", str(out)])
    assert isinstance(result.exception, ConfigError)


def test_a_probe_needs_nothing_but_a_reading() -> None:
    """Any object with the two fields will do, such as another engine's own."""
    reading = SimpleNamespace(logprobs=(-1.0, -2.0), pooled_state=torch.zeros(HIDDEN))
    assert 0 < make_probe().estimate(reading) <= 1  # type: ignore[arg-type]
