"""Evaluation of a probe, its report and its ablations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from semanticspec.commands.probe import probe_app
from semanticspec.demo.exact_judge import ExactJudge
from semanticspec.errors import ConfigError, ProbeError
from semanticspec.output.pages import check_report_libraries
from semanticspec.probes import Probe
from semanticspec.probes.features import TokenSignals
from semanticspec.problems.sources import ProblemText
from semanticspec.records import Author
from semanticspec.training.ablations import (
    JOINT_ESTIMATORS,
    NUM_VARIANTS,
    Retraining,
    config_of,
    num_variants,
)
from semanticspec.training.data.examples import split_of
from semanticspec.training.data.storage import Collection
from semanticspec.training.evaluate import Evaluation, JudgedRows, evaluate, judge_rows, read_evaluation
from semanticspec.training.feature_table import feature_table
from semanticspec.training.labels.label import label
from semanticspec.training.metrics import Interval, ProblemBootstrap
from semanticspec.training.report import write_report
from semanticspec.training.stages import run_evaluate
from semanticspec.training.train import TrainConfig, train
from tests.support.collecting import (
    run_collect,
)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    problems = [ProblemText(f"problem {i}", "ab"[: 1 + i % 2]) for i in range(24)]
    collection = run_collect(tmp_path_factory.mktemp("data"), problems)
    label(collection, ExactJudge())
    return collection


@pytest.fixture(scope="module")
def probes(labelled: Collection) -> dict[str, Probe]:
    config = TrainConfig(widths=(8,), features=("sum", "mean"), max_epochs=3)
    roles: tuple[Author, ...] = ("target", "draft")
    return {role: train(labelled, role, "exact", config) for role in roles}


def test_rows_carry_what_both_probes_say(labelled: Collection, probes: dict[str, Probe]) -> None:
    judged = judge_rows(labelled, probes["target"], draft_probe=probes["draft"])
    assert judged.examples.drafted.all()
    states = {
        tuple(segment.draft_logprobs): shard.draft_states[place]
        for shard in labelled
        for place, segment in enumerate(shard.segments)
        if segment.author == "draft"
    }
    for place in range(0, len(judged.examples), 7):
        logprobs = judged.examples.draft_logprobs[place]
        expected = probes["draft"].probabilities(states[logprobs][None], [TokenSignals(logprobs)])
        if sum(torch.equal(state, states[logprobs]) for state in states.values()) == 1:
            assert float(judged.signals["p_draft"][place]) == pytest.approx(float(expected))
    ratio = (judged.after / judged.signals["p_draft"]).clamp(max=1)
    assert torch.equal(judged.acceptance, ratio)
    alone = judge_rows(labelled, probes["target"])
    assert set(alone.acceptance.tolist()) <= {0.0, 1.0}
    assert alone.signals["p_draft"].tolist() == pytest.approx(
        [sum(row) for row in alone.examples.draft_logprobs]
    )
    assert "p_draft" not in judge_rows(labelled, probes["draft"]).signals
    with pytest.raises(ProbeError, match="must be a draft's"):
        judge_rows(labelled, probes["target"], draft_probe=probes["target"])
    other = Probe(
        replace(probes["target"].card, fingerprint="beef"),
        probes["target"].network,
        probes["target"].calibration,
    )
    with pytest.raises(ProbeError, match="fingerprint beef"):
        judge_rows(labelled, other)


@pytest.fixture(scope="module")
def evaluated(labelled: Collection, probes: dict[str, Probe]) -> tuple[Evaluation, JudgedRows]:
    probe = probes["target"]
    judged = judge_rows(labelled, probe)
    again = Retraining(labelled, probe.card, on_step=lambda _: None)
    made = evaluate(judged, probe)
    return replace(made, learning_curve=again.learning_curve(), ablations=again.ablations()), judged


def test_the_report_needs_nothing_beside_it(tmp_path: Path, evaluated: tuple[Evaluation, JudgedRows]) -> None:
    evaluation, judged = evaluated
    page = write_report(evaluation, judged, tmp_path).read_text()
    assert {path.name for path in tmp_path.iterdir()} == {
        *(f"{name}.png" for name in ("reliability", "predicted", "roc", "learning_curve")),
        "report.html",
        "evaluation.json",
    }
    assert page.count("data:image/png;base64,") == 8
    assert "://" not in page  # "http" alone can occur in base64
    assert "{{" not in page
    assert " <small>[" in page
    content = read_evaluation(tmp_path)
    assert content == json.loads(evaluation.to_json(), parse_constant=pytest.fail)
    assert f"{content['after']['auroc']['value']:.3f}" in page
    assert len(content["ablations"]) == NUM_VARIANTS + len(JOINT_ESTIMATORS)
    assert page.count("joint both, bce") == 2  # beside the features, and among the ablations
    assert "lower is better" in page
    signals = content["signals"]
    best = max(signals, key=lambda name: signals[name]["auroc"]["value"])
    assert content["best_signal"] == best
    difference = content["after"]["auroc"]["value"] - signals[best]["auroc"]["value"]
    assert content["differences"]["auroc"]["value"] == pytest.approx(difference, abs=2e-5)


def test_every_feature_is_a_row_chosen_on_validation_problems(
    evaluated: tuple[Evaluation, JudgedRows],
) -> None:
    evaluation, judged = evaluated
    rows = {row["name"]: row for row in evaluation.features}
    assert {"first_entropy", "smallest_margin", "new_numbers", "steps_before", "difference_minimum"} <= set(
        rows
    )
    assert rows["sum"]["figures"]["auroc"].value == pytest.approx(
        evaluation.signals["sum"]["auroc"].value
        if rows["sum"]["higher_is_better"]
        else 1 - evaluation.signals["sum"]["auroc"].value
    )
    chosen = [row["figures"]["validation_auroc"].value for row in evaluation.features]
    assert chosen == sorted(chosen, reverse=True)
    assert min(chosen) >= 0.5
    # The direction comes from the validation problems: test problems turned round change the figure, not the row.
    examples = judged.examples
    turned = replace(judged, examples=replace(examples, labels=1 - examples.labels))
    boot = ProblemBootstrap(examples.problem_ids, examples.weights, resamples=10)
    again = feature_table(boot, judged.validation, turned.examples, "target")
    assert [row["name"] for row in again] == [row["name"] for row in evaluation.features]
    assert all(row["higher_is_better"] == rows[row["name"]]["higher_is_better"] for row in again)


NO_INTERVAL = Interval(float("nan"), float("nan"), float("nan"))


@pytest.mark.parametrize(
    ("contexts", "auroc"),
    [
        ([0, 0, 1, 2], NO_INTERVAL),
        ([0, 4], Interval(0.7, float("nan"), float("nan"))),
        ([0, 8], Interval(0.7, 0.6, 0.8)),
        ([3], Interval(0.7, 0.6, 0.8)),
    ],
)
def test_a_report_of_few_problems_leaves_out_what_cannot_be_drawn(
    tmp_path: Path,
    probes: dict[str, Probe],
    evaluated: tuple[Evaluation, JudgedRows],
    contexts: list[int],
    auroc: Interval,
) -> None:
    examples = evaluated[1].examples
    one_class = replace(evaluated[1], examples=replace(examples, labels=torch.ones_like(examples.labels)))
    curve = [{"problems": n, "contexts": n, "figures": {"auroc": auroc}} for n in contexts]
    evaluation = replace(evaluate(one_class, probes["target"]), learning_curve=curve)
    (tmp_path / "roc.png").touch()  # of an earlier report
    page = write_report(evaluation, one_class, tmp_path).read_text()
    assert {path.stem for path in tmp_path.glob("*.png")} == {"reliability", "predicted"}
    assert "No figure roc: all labels are on one side of 0.5." in page
    assert "No figure learning curve: fewer than two sizes" in page


def test_a_report_of_few_problems_says_so(
    labelled: Collection, probes: dict[str, Probe], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_evaluate(labelled, probes["target"], tmp_path, learning_curve=False)
    assert "test problems are too few to tell how good the probe is" in capsys.readouterr().err


def test_retraining_all_of_it_gives_the_same_probe(
    probes: dict[str, Probe], evaluated: tuple[Evaluation, JudgedRows]
) -> None:
    probe, (evaluation, _) = probes["target"], evaluated
    assert config_of(probe.card) == TrainConfig(
        widths=(8,), features=("sum", "mean"), max_epochs=3, pooling="mean"
    )
    sizes = [point["problems"] for point in evaluation.learning_curve]
    assert sizes == sorted(set(sizes))
    assert evaluation.learning_curve[-1]["figures"]["auroc"] == evaluation.after["auroc"]
    named = {row["name"]: row["figures"]["auroc"] for row in evaluation.ablations}
    assert named["as shipped, bce"] == evaluation.after["auroc"]


def test_a_report_that_is_not_there_or_old_is_told(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="cannot be read"):
        read_evaluation(tmp_path)
    (tmp_path / "evaluation.json").write_text('{"format": 0}')
    with pytest.raises(ProbeError, match="not of format"):
        read_evaluation(tmp_path)


def test_the_command_prints_what_it_writes(
    tmp_path: Path, labelled: Collection, probes: dict[str, Probe], evaluated: tuple[Evaluation, JudgedRows]
) -> None:
    for role, probe in probes.items():
        probe.save(tmp_path / role)
    options = ["--data", str(labelled.folder), "--no-learning-curve"]
    runner, out = CliRunner(), tmp_path / "report"
    done = runner.invoke(
        probe_app, ["evaluate", *options, "--probe", str(tmp_path / "target"), "--out", str(out)]
    )
    assert done.exit_code == 0, done.exception
    content = read_evaluation(out)
    assert content["after"] == json.loads(evaluated[0].to_json())["after"]
    assert content["learning_curve"] == content["ablations"] == []
    assert f"{content['after']['auroc']['value']:.3f}" in done.stdout
    assert not (out / "learning_curve.png").exists()
    options += ["--probe", str(tmp_path / "target"), "--draft-probe", str(tmp_path / "draft")]
    done = runner.invoke(probe_app, ["evaluate", *options, "--out", str(tmp_path / "both")])
    assert done.exit_code == 0, done.exception
    assert read_evaluation(tmp_path / "both")["p_draft_source"] == "the draft's probe"


def test_too_few_problems_are_told(tmp_path: Path, probes: dict[str, Probe]) -> None:
    name = next(f"problem {i}" for i in range(100) if split_of(f"problem {i}") == "train")
    collection = run_collect(tmp_path, [ProblemText(name, "a")])
    label(collection, ExactJudge())
    with pytest.raises(ProbeError, match="collect on more problems"):
        train(collection, "target", "exact", TrainConfig())
    with pytest.raises(ProbeError, match="collect on more problems"):
        judge_rows(collection, probes["target"])


def test_missing_libraries_are_named_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semanticspec.training.calibrate.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install .*\[probes\]"):
        train(Collection(tmp_path), "target", "exact", TrainConfig())
    for missing in ("matplotlib", "jinja2", "sklearn"):
        monkeypatch.setattr(
            "semanticspec.output.pages.find_spec", lambda name, gone=missing: name != gone or None
        )
        with pytest.raises(ConfigError, match=rf"needs the module {missing}: pip install .*\[probes\]"):
            check_report_libraries("probes", "sklearn")


def test_ablations_pool_every_state_in_other_ways(collections: dict[str, Collection]) -> None:
    config, steps = TrainConfig(widths=(4,), max_epochs=1), []
    for name, others in (("none", {"last", "attention"}), ("mean", set())):
        steps.clear()
        probe = train(collections[name], "target", "exact", config)
        again = Retraining(collections[name], probe.card, "", steps.append)
        names = {row["name"] for row in again.ablations()}
        assert {row for row in names if "pooling" in row} == {
            f"state, bce, pooling {other}" for other in others
        }
        assert len(names) == len(steps) == num_variants(collections[name], "target")
