"""Training: it learns, is repeatable, picks the best estimator, and pools as configured."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from typer.testing import CliRunner

from semanticspec.commands.probe import probe_app
from semanticspec.decoding.draft import Draft
from semanticspec.demo.exact_judge import ExactJudge
from semanticspec.engines.base import StateSpec
from semanticspec.errors import ConfigError, ProbeError
from semanticspec.loading import load_pair
from semanticspec.probes import Probe
from semanticspec.probes.card import ProbePooling
from semanticspec.probes.features import (
    TokenSignals,
    features_for,
    named_features,
)
from semanticspec.problems.sources import ProblemText
from semanticspec.records import Generation
from semanticspec.training.data.examples import gather, segment_signals, segment_texts
from semanticspec.training.data.storage import Collection
from semanticspec.training.evaluate import judge_rows
from semanticspec.training.labels.label import label, meanings_of, read_meanings
from semanticspec.training.metrics import (
    area_under_roc,
    point_estimate,
)
from semanticspec.training.train import (
    TrainConfig,
    candidates,
    fit,
    fit_best,
    logits_of,
    pooling_of,
    train,
)
from tests.support.collecting import (
    CONFIG,
    HIDDEN,
    make_pair,
    run_collect,
    scripted_pair,
    synthetic,
    with_a_marked_position,
)
from tests.support.demo_problems import write_problems


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


def test_the_estimator_that_wins_is_kept() -> None:
    config = TrainConfig(
        estimator="auto",
        widths=(16,),
        features=("mean", "minimum"),
        components=2,
        max_epochs=30,
        batch_size=32,
    )
    by_state = synthetic(100)
    fitted, losses = fit_best(by_state.of_split("train"), by_state.of_split("validation"), "target", config)
    assert set(losses) == {"features", "components", "state", "both"}
    assert fitted.validation_loss == min(losses.values())
    assert fitted.config.use_state
    assert losses["features"] > losses["state"]
    values = torch.rand(len(by_state), generator=torch.Generator().manual_seed(1))
    by_features = replace(
        by_state,
        signals=tuple(TokenSignals((float(-value), -2.0)) for value in values),
        labels=(values > 0.5).float(),
        states=torch.randn(len(by_state), HIDDEN, generator=torch.Generator().manual_seed(2)),
    )
    fitted, losses = fit_best(
        by_features.of_split("train"), by_features.of_split("validation"), "target", config
    )
    assert losses["features"] < losses["state"]
    assert fitted.config.features
    alone = candidates(config, "target", HIDDEN)["state"]
    only, tried = fit_best(
        by_state.of_split("train"),
        by_state.of_split("validation"),
        "target",
        replace(config, estimator="state"),
    )
    assert only.config == alone
    assert list(tried) == ["state"]


def test_attention_finds_the_position_that_tells() -> None:
    examples = with_a_marked_position(120)
    training, validation, test = (examples.of_split(split) for split in ("train", "validation", "test"))
    config = TrainConfig(widths=(16,), features=("mean",), learning_rate=0.01, max_epochs=30, batch_size=64)
    figures = {}
    for pooling in POOLINGS:
        one = replace(config, pooling=pooling)
        logits = logits_of(fit(training, validation, "target", one).network, test, one)
        figures[pooling] = point_estimate(area_under_roc, logits, test.labels >= 0.5)
    assert figures["attention"] > 0.93
    assert figures["attention"] > max(figures["mean"], figures["last"]) + 0.05


def test_a_pooling_the_collection_cannot_give_is_refused() -> None:
    assert pooling_of("none", None, "target") == pooling_of("mean", None, "target") == "mean"
    assert pooling_of("last", None, "target") == pooling_of("none", "last", "target") == "last"
    with pytest.raises(ConfigError, match=r"collected with the pooling 'mean'.*--pooling none\)"):
        pooling_of("mean", "attention", "draft")
    with pytest.raises(ConfigError, match="the pooling last or none"):
        pooling_of("mean", "last", "draft")
    with pytest.raises(ConfigError, match="pooling is 'none'; expected one of mean, last, attention"):
        TrainConfig(pooling="none")  # type: ignore[arg-type]


POOLINGS: tuple[ProbePooling, ...] = get_args(ProbePooling)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_from_every_state_to_a_probe(collections: dict[str, Collection], pooling: ProbePooling) -> None:
    config = TrainConfig(widths=(8,), features=("sum",), max_epochs=4, pooling=pooling)
    every, pair = collections["none"], scripted_pair("none")
    probes = {role: train(every, role, "exact", config) for role in ("target", "draft")}  # type: ignore[arg-type]
    for role, probe in probes.items():
        model = getattr(pair, role)
        assert probe.card.pooling == probe.card.training["pooling"] == pooling
        assert probe.check(model.engine.info, model.vocabulary.fingerprint, role) == []  # type: ignore[arg-type]
    judged = judge_rows(every, probes["target"], draft_probe=probes["draft"])
    assert judged.signals["p_draft"].shape == judged.after.shape
    if pooling == "attention":
        with pytest.raises(ConfigError, match="--pooling none"):
            train(collections["mean"], "target", "exact", config)
        with pytest.raises(ProbeError, match="pooling attention instead of last"):
            judge_rows(collections["last"], probes["target"])
        return
    pooled = collections[pooling]
    again = train(pooled, "target", "exact", replace(config, pooling=None))
    assert again.card.pooling == pooling
    rows = gather(pooled, read_meanings(pooled, "exact"), "target", "unbiased")
    torch.testing.assert_close(
        again.probabilities(rows.states, rows.signals),
        probes["target"].probabilities(rows.states, rows.signals),
        atol=1e-3,
        rtol=0,
    )
    assert len(judge_rows(pooled, probes["target"]).after) == len(judged.after)


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
    assert Probe.load(out).card.features == features_for("target")
    result = runner.invoke(probe_app, ["train", "--role", "x", "--data", data, "--out", str(out)])
    assert isinstance(result.exception, ConfigError)


def vars_of(states: StateSpec) -> dict[str, Any]:
    return {"layer": states.layer, "pooling": states.pooling}


NOT_READ = Generation((), torch.zeros(0))


@pytest.mark.slow
def test_from_problems_to_a_pair_with_attention(tmp_path: Path) -> None:
    """The commands, an inner layer of the target and all; the probe says in use what it says of its rows."""
    write_problems(tmp_path / "problems.jsonl")
    data, out = tmp_path / "data", tmp_path / "probe"
    collecting = ["collect", "--out", str(data), "--problems", str(tmp_path / "problems.jsonl")]
    collecting += "--samples 4 --max-contexts 2 --max-trace-tokens 64 --one-trace".split()
    training = ["train", "--role", "target", "--data", str(data), "--out", str(out), "--calibration", "none"]
    training += "--widths 8 --features all --max-epochs 5".split()
    for command in (
        [*collecting, "--pooling", "none", "--target-layer", "8"],
        ["label", "--data", str(data)],
        [*training, "--pooling", "attention"],
    ):
        result = CliRunner().invoke(probe_app, command)
        assert result.exit_code == 0, (result.output, result.exception)
    manifest = Collection(data).manifest
    assert [(model.layer, model.pooling) for model in (manifest.target, manifest.draft)] == [
        (8, "none"),
        (-1, "none"),
    ]
    pair = load_pair(target_probe=str(out))
    assert isinstance(pair.target_probe, Probe)
    shard = next(shard for shard in Collection(data) if len(shard.contexts) == 2)
    vocabulary, texts = pair.target.vocabulary, segment_texts(shard)
    for context in shard.contexts:
        places = [i for i, segment in enumerate(shard.segments) if segment.context_id == context.context_id]
        ids = [*vocabulary.render_prompt(shard.prompt), *vocabulary.encode(context.text)]
        scores = asyncio.run(
            pair.target.engine.score(ids, [shard.segments[i].token_ids for i in places], signals=True)
        )
        signals = [segment_signals(shard.segments[i], "target", texts[i]) for i in places]
        drafts = [Draft(NOT_READ, shard.segments[i].token_ids, texts[i]) for i in places]
        stored = pair.target_probe.probabilities(shard.target_states[places], signals)
        assert pair.target_probe.estimate_many(scores, drafts) == pytest.approx(stored.tolist(), abs=1e-4)
    asyncio.run(pair.aclose())


def test_a_draft_probe_with_the_targets_features_is_refused_before_training(tmp_path: Path) -> None:
    problems = [ProblemText(f"problem {i}", "a") for i in range(20)]
    run_collect(tmp_path, problems)
    label(Collection(tmp_path), ExactJudge())
    epochs: list[Any] = []
    with pytest.raises(ConfigError, match="agreement"):
        train(Collection(tmp_path), "draft", "exact", TrainConfig(features=("agreement",)), epochs.append)
    assert not epochs
    config = TrainConfig(features=(*named_features("portable", "target"), "entropy"), max_epochs=2)
    probe = train(Collection(tmp_path), "target", "exact", config)
    assert {"auroc_entropy", "auroc_agreement", "auroc_sum_logprob"} <= probe.card.metrics.keys()
    scored = asyncio.run(make_pair().target.engine.score([0], [[2, 1]], signals=True))
    assert 0 < probe.estimate(scored[0]) <= 1
