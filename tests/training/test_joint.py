"""A joint probe: one network over both models' passes; the same estimate of a stored row and in use."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch
from typer.testing import CliRunner

from semanticspec import decode
from semanticspec.commands.probe import probe_app
from semanticspec.decoding.draft import Draft
from semanticspec.decoding.generate import result_of
from semanticspec.decoding.pair import Pair
from semanticspec.errors import ConfigError, ProbeError
from semanticspec.probes import Probe
from semanticspec.probes.features import FEATURES
from semanticspec.records import Generation
from semanticspec.training.ablations import Retraining
from semanticspec.training.data.examples import gather, segment_texts
from semanticspec.training.data.storage import Collection
from semanticspec.training.evaluate import judge_rows
from semanticspec.training.labels.label import read_meanings
from semanticspec.training.metrics import area_under_roc, point_estimate
from semanticspec.training.settings import parse_settings
from semanticspec.training.train import TrainConfig, estimates_of, fit, logits_of, train
from tests.support.collecting import HIDDEN, scripted_pair, synthetic

SMALL = TrainConfig(widths=(8,), features=tuple(FEATURES), max_epochs=3, joint=True, calibration="none")


def test_a_joint_probe_sees_what_neither_pass_says_alone() -> None:
    examples = synthetic(150)
    of_draft = torch.randn(len(examples), 3, generator=torch.Generator().manual_seed(5)) * 4
    both = (examples.states[:, 0] - 2) * of_draft[:, 0]  # type: ignore[index]
    examples = replace(examples, draft_states=of_draft, labels=torch.sigmoid(both))
    training, validation, test = (examples.of_split(split) for split in ("train", "validation", "test"))
    figures = {}
    for joint in (False, True):
        config = TrainConfig(widths=(64, 32), max_epochs=60, batch_size=32, learning_rate=0.01, joint=joint)
        fitted = fit(training, validation, "target", config)
        assert fitted.network.num_inputs == HIDDEN + 3 * joint
        drafted = test.select(test.drafted)
        logits = logits_of(fitted.network, drafted, config)
        figures[joint] = point_estimate(area_under_roc, logits, drafted.labels >= 0.5)
    assert figures[True] > 0.8 > figures[False]


@pytest.mark.parametrize("pooling", ["mean", "none"])
@pytest.mark.parametrize("components", [0, 3])
def test_stored_rows_and_use_give_the_same_estimates(
    collections: dict[str, Collection], tmp_path: Path, pooling: str, components: int
) -> None:
    collection, pair = collections[pooling], scripted_pair(pooling)
    # Stored log-probabilities are float32, and this pair has tokens with a probability of exactly one half.
    features = tuple(name for name in FEATURES if name != "below_half")
    made = train(collection, "target", "exact", replace(SMALL, components=components, features=features))
    made.save(tmp_path)
    probe = Probe.load(tmp_path)
    assert probe.card.draft is not None
    assert probe.card.draft.model_id == "scripted"
    assert probe.needs_draft
    info, fingerprint = pair.draft.engine.info, pair.draft.vocabulary.fingerprint
    assert probe.check_draft(info, fingerprint) == []
    rows = gather(collection, read_meanings(collection, "exact"), "target", "unbiased", "mean")
    stored = estimates_of(probe, rows.select(rows.drafted)).tolist()
    used = [estimate for shard in collection for estimate in _in_use(pair, probe, shard)]
    assert len(set(stored)) > 3
    assert used == pytest.approx(stored, abs=1e-5)


def _in_use(pair: Pair, probe: Probe, shard: Any) -> list[float]:
    """Scores the draft-written segments of a shard again, as the loop would."""
    found, texts = [], segment_texts(shard)
    samples = {segment.context_id: 0 for segment in shard.segments}
    for segment in shard.segments:
        samples[segment.context_id] += segment.count * (segment.author == "draft")
    for place, segment in enumerate(shard.segments):
        if segment.author != "draft" or samples[segment.context_id] < 2:
            continue
        ids = pair.target.vocabulary.render_prompt(shard.prompt)
        ids = [*ids, *pair.target.vocabulary.encode(texts[place].before)]
        (score,) = asyncio.run(pair.target.engine.score(ids, [segment.token_ids], signals=True))
        (own,) = asyncio.run(pair.draft.engine.score(ids, [segment.token_ids]))
        generation = Generation(own.logprobs, own.pooled_state, None, segment.token_ids, "stop")
        found.append(probe.estimate(score, Draft(generation, segment.token_ids, texts[place])))
    return found


def test_the_rule_asks_a_joint_probe_with_both_passes(collections: dict[str, Collection]) -> None:
    probes = [
        train(collections["mean"], "target", "exact", SMALL),
        train(collections["mean"], "draft", "exact", TrainConfig(widths=(4,), max_epochs=1)),
    ]
    plain = scripted_pair("mean")
    pair = Pair(plain.target, plain.draft, *probes)
    result = asyncio.run(result_of(decode(pair, "ab", max_new_tokens=30, max_repeated_tokens=0)))
    asked = [segment for segment in result.segments if segment.p_target is not None]
    assert asked
    assert all(0 < segment.p_target <= 1 for segment in asked)
    with pytest.raises(ProbeError, match=r"give it the drafted segments: estimate\(reading, draft\)"):
        probes[0].estimate(asyncio.run(pair.target.engine.score([0], [[2, 1]], signals=True))[0])


def test_evaluation_and_ablations_of_a_joint_probe(collections: dict[str, Collection]) -> None:
    for name in ("mean", "none"):
        collection = collections[name]
        probe = train(collection, "target", "exact", SMALL)
        judged = judge_rows(collection, probe)
        assert len(judged.after) == len(judged.examples)
        if name == "mean":
            again = Retraining(collection, probe.card, "", lambda _: None)
            rows = {row["name"]: row["figures"] for row in again.ablations()}
            assert {"both, bce", "joint features, bce", "joint components, bce", "joint both, bce"} <= set(
                rows
            )
            shipped = point_estimate(
                area_under_roc, judged.after, judged.positive, judged.examples.weights.double()
            )
            assert rows["as shipped, bce"]["auroc"].value == pytest.approx(shipped)
    foreign = replace(probe.card, draft=replace(probe.card.draft, fingerprint="beef"))
    with pytest.raises(ProbeError, match="draft's fingerprint beef"):
        judge_rows(collection, Probe(foreign, probe.network, probe.calibration))


def test_a_joint_probe_of_another_draft_is_refused(collections: dict[str, Collection]) -> None:
    probe = train(collections["mean"], "target", "exact", SMALL)
    pair = scripted_pair("mean")
    info, fingerprint = pair.draft.engine.info, pair.draft.vocabulary.fingerprint
    with pytest.raises(ProbeError, match=r"made for the draft scripted.*hidden size 6 instead of 7"):
        probe.check_draft(replace(info, hidden_size=7), fingerprint)
    with pytest.raises(
        ProbeError, match="pooling mean instead of last; load the engine with states=StateSpec"
    ):
        probe.check_draft(replace(info, pooling="last"), fingerprint)
    other = Probe(
        replace(probe.card, draft=replace(probe.card.draft, revision="old")),  # type: ignore[type-var]
        probe.network,
        probe.calibration,
    )
    (warning,) = other.check_draft(replace(info, revision="new"), fingerprint)
    assert "trained with revision old" in warning


def test_a_probe_that_compares_tokens_needs_one_vocabulary(collections: dict[str, Collection]) -> None:
    probe = train(collections["mean"], "target", "exact", SMALL)
    assert probe.needs_same_tokens
    without = replace(SMALL, features=("difference_sum",), joint=False, use_state=False)
    light = train(collections["mean"], "target", "exact", without)
    assert not light.needs_same_tokens
    assert light.needs_draft
    assert light.card.draft is not None
    assert not light.card.draft.use_state


def test_settings_that_cannot_be_are_refused(collections: dict[str, Collection]) -> None:
    with pytest.raises(ConfigError, match="joint probe pools the states of both models"):
        TrainConfig(joint=True, pooling="attention")
    with pytest.raises(ConfigError, match="only the target's probe can be joint"):
        train(collections["mean"], "draft", "exact", TrainConfig(joint=True))
    with pytest.raises(ConfigError, match="counting 'paper'"):
        train(collections["mean"], "target", "exact", TrainConfig(joint=True, counting="paper"))
    with pytest.raises(ConfigError, match=r"put `joint = true` under \[train.target\]"):
        parse_settings({"train": {"joint": True}})
    settings = parse_settings({"train": {"features": "all", "target": {"joint": True}}})
    assert settings.train["target"].features == tuple(FEATURES)
    assert settings.train["draft"].joint is False


def test_features_that_an_older_collection_lacks(collections: dict[str, Collection], tmp_path: Path) -> None:
    """They are refused where they are named, and left out where the collection decides."""
    old = tmp_path / "old"
    _copy_without_margins(collections["mean"].folder, old)
    with pytest.raises(ConfigError, match=r"smallest_margin need margins.*collect again"):
        train(Collection(old), "target", "exact", TrainConfig(features=("sum", "smallest_margin")))
    config = TrainConfig(estimator="features", widths=(4,), max_epochs=1)
    features = train(Collection(old), "target", "exact", config).card.features
    assert "new_numbers" in features
    assert "smallest_margin" not in features
    assert "smallest_margin" in train(collections["mean"], "target", "exact", config).card.features


def _copy_without_margins(source: Path, to: Path) -> None:
    for path in source.rglob("*"):
        if not path.is_file():
            continue
        copy = to / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
        if path.parent.name == "problems" and path.suffix == ".parquet":
            table = pyarrow.parquet.read_table(path)
            pyarrow.parquet.write_table(table.drop_columns("target_margins"), copy)


def test_the_role_joint_of_the_command(collections: dict[str, Collection], tmp_path: Path) -> None:
    arguments = f"train --role joint --data {collections['mean'].folder} --out {tmp_path} --estimator auto"
    arguments += " --features portable --widths 8 --max-epochs 1"
    done = CliRunner().invoke(probe_app, arguments.split())
    assert done.exit_code == 0, done.exception
    card = Probe.load(tmp_path).card
    assert card.role == "target"
    assert card.draft is not None
    assert card.training["joint"] is True
