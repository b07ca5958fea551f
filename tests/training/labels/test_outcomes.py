"""Outcome labels: what the target reaches from after a segment, stored, trained on and compared with meanings."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from semanticspec.decoding.pair import Model
from semanticspec.demo.exact_judge import ExactJudge
from semanticspec.engines.scripted import ScriptedEngine
from semanticspec.errors import ConfigError, ProbeError
from semanticspec.problems.sources import ProblemText
from semanticspec.training.data.collect import collect
from semanticspec.training.data.examples import gather
from semanticspec.training.data.storage import Collection
from semanticspec.training.labels.comparison import compare_labels, comparison_tables
from semanticspec.training.labels.continuations import golds_of, measure_outcomes
from semanticspec.training.labels.label import count_labels, label, read_labels
from semanticspec.training.labels.outcomes import (
    OutcomeSettings,
    OutcomeStore,
    ProblemOutcomes,
    read_outcomes,
)
from semanticspec.training.train import TrainConfig, train
from tests.support.collecting import CONFIG, END, make_pair, make_vocabulary, many_problems
from tests.support.outcomes import LetterGrader, repeats_the_last_letter

SETTINGS = OutcomeSettings(num_samples=4, segments_per_context=2, max_new_tokens=6)
GOLDS = {problem.problem_id: "a" for problem in many_problems()}


def make_target(of: Any = repeats_the_last_letter) -> Model:
    return Model(ScriptedEngine(of, 6), make_vocabulary())


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    config = replace(CONFIG, max_contexts=2)
    made = asyncio.run(collect(make_pair(), many_problems(), config, tmp_path / "data"))
    label(made, ExactJudge())
    return made


def measure(
    collection: Collection, target: Model | None = None, golds: Any = GOLDS, **options: Any
) -> dict[str, ProblemOutcomes]:
    settings = options.pop("settings", SETTINGS)
    return asyncio.run(
        measure_outcomes(target or make_target(), collection, settings, golds, LetterGrader(), **options)
    )


def test_a_label_is_the_share_of_right_continuations(collection: Collection) -> None:
    """The target ends where a segment ends, so an outcome is right exactly if the segment holds the letter a."""
    measure(collection)
    outcomes = read_outcomes(collection)
    checked = 0
    for shard in collection:
        labels = count_labels(shard.segments, outcomes[shard.problem_id], "target", "unbiased")
        for context in shard.contexts:
            own = [
                (segment, value)
                for segment, value in zip(shard.segments, labels, strict=True)
                if segment.context_id == context.context_id and value is not None
            ]
            assert 1 <= len(own) <= 2
            assert all(segment.author == "draft" for segment, _ in own)
            for segment, value in own:
                if segment.text.strip() in ("a", "b"):
                    assert value == float(segment.text.strip() == "a")
                    checked += 1
    assert checked > 20
    rows = gather(collection, outcomes, "target", "unbiased")
    assert bool(rows.drafted.all())
    assert (rows.halves[:, 0] == rows.labels).all()  # every continuation gives the same answer here
    with pytest.raises(ProbeError, match="outcome labels are for the target's probe"):
        gather(collection, outcomes, "draft", "unbiased")


def test_a_segment_that_ends_the_text_is_graded_as_it_is(collection: Collection) -> None:
    shard = next(iter(collection))
    ended = replace(
        shard,
        problem_id="ended",
        segments=tuple(
            replace(one, text="b", token_ids=(1, END), stop_reason="stop") for one in shard.segments
        ),
    )
    collection.write(ended)
    engine = ScriptedEngine(repeats_the_last_letter, 6)
    settings = replace(SETTINGS, baseline=False)
    found = measure(collection, Model(engine, make_vocabulary()), {"ended": "b"}, settings=settings)["ended"]
    assert found.segments
    assert all(right == [True] * 4 for right in found.segments.values())


def test_an_interrupted_run_continues_and_other_settings_are_refused(collection: Collection) -> None:
    seen: list[Any] = []

    def stop_after_three(measured: Any) -> None:
        seen.append(measured)
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(collection, concurrency=1, on_progress=stop_after_three)
    part = dict(OutcomeStore(collection).measured)
    assert len(part) == 3
    with (collection.folder / "outcomes.jsonl").open("a") as file:
        file.write('{"problem_id": "cut')  # killed while writing
    again: list[Any] = []
    whole = measure(collection, on_progress=again.append)
    assert again.count(None) == 3
    assert whole.items() >= part.items()
    fresh = Collection(collection.folder)
    (collection.folder / "outcomes.jsonl").rename(collection.folder / "kept")
    assert measure(fresh) == whole
    with pytest.raises(ProbeError, match=r"settings\.num_samples is 4 in the folder and 6 in this run"):
        measure(collection, settings=replace(SETTINGS, num_samples=6))


def test_without_a_right_answer_the_majority_counts(collection: Collection) -> None:
    """Asked "a" the target answers "b"; asked "ab" it answers nothing."""
    measured = measure(collection, golds={})
    for shard in collection:
        found = measured[shard.problem_id]
        expected = ("b", "majority") if shard.prompt == "a" else ("", "none")
        assert (found.reference, found.source) == expected
        assert bool(found.segments) == (shard.prompt == "a")


def test_without_a_majority_nothing_is_measured(collection: Collection) -> None:
    silent = make_target(lambda _: [0, 0, 0, 0, 1, 0])
    measured = measure(collection, silent, golds={}, max_problems=3)
    assert [one.source for one in measured.values()] == ["none"] * 3
    with pytest.raises(ProbeError, match="no outcome labels; make them with: semanticspec probe outcomes"):
        read_labels(collection, "outcome")


def test_problems_that_were_not_measured_have_no_rows(collection: Collection) -> None:
    measured = measure(collection, max_problems=5)
    rows = gather(collection, read_outcomes(collection), "target", "unbiased")
    assert set(rows.problem_ids) == set(measured)
    assert len(measured) == 5


def test_a_probe_is_trained_on_outcomes(collection: Collection) -> None:
    measure(collection)
    probe = train(
        collection, "target", "outcome", TrainConfig(widths=(8,), max_epochs=30, calibration="none")
    )
    assert probe.card.judge == "outcome"
    rows = gather(collection, read_outcomes(collection), "target", "unbiased")
    assert probe.card.num_rows < len(rows)


def test_both_labels_are_compared_on_the_same_segments(collection: Collection) -> None:
    """The target says "a" in 70 % of its segments, and "a" is right: the labels agree."""
    measure(collection)
    comparison = compare_labels(collection, "exact")
    assert 0.3 < comparison.correlation.value <= 1
    assert all(one.baseline is not None for one in comparison.segments)
    assert comparison.predicted_by["outcome"].value > comparison.predicted_by["meaning"].value > 0
    shares = [group[0].value for group in comparison.groups.values()]
    assert sum(shares) == pytest.approx(1)
    tables = comparison_tables(comparison)
    assert "of both labels" in tables[0].rows
    with pytest.raises(ProbeError, match="no labels by the judge 'numeric'"):
        compare_labels(collection, "numeric")


def test_the_target_must_be_the_collections(collection: Collection) -> None:
    path = collection.folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["target"]["fingerprint"] = "f00d"
    path.write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match="use the same target"):
        measure(Collection(collection.folder))


def test_right_answers_are_those_of_the_same_problems(collection: Collection) -> None:
    shards = list(collection)
    with pytest.raises(ConfigError, match="has another text in the collection"):
        golds_of(shards, [ProblemText(shards[0].problem_id, "something else")])
    assert golds_of(shards, [ProblemText(shards[0].problem_id, shards[0].prompt)]) == {}
