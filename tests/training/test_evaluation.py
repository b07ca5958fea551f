"""Figures against scikit-learn and scipy, calibration, the choice of an estimator, and the report."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as reference
from sklearn.decomposition import PCA
from typer.testing import CliRunner

from semanticspec.commands.probe import probe_app
from semanticspec.demo.judge import ExactJudge
from semanticspec.errors import ConfigError, ProbeError
from semanticspec.output.pages import check_report_libraries
from semanticspec.probes import Probe
from semanticspec.probes.calibration import NO_CALIBRATION, Calibration
from semanticspec.probes.features import TokenSignals
from semanticspec.probes.network import ProbeNetwork
from semanticspec.records import Author
from semanticspec.training.ablations import NUM_VARIANTS, Retraining, config_of
from semanticspec.training.calibrate import choose
from semanticspec.training.data.examples import split_of
from semanticspec.training.data.problems import ProblemText
from semanticspec.training.data.storage import Collection
from semanticspec.training.evaluate import Evaluation, JudgedRows, evaluate, judge_rows, read_evaluation
from semanticspec.training.labels.label import label
from semanticspec.training.metrics import (
    ProblemBootstrap,
    area_under_roc,
    average_precision,
    calibration_error,
    mean_absolute_error,
    r_squared,
    signal_values,
    spearman,
)
from semanticspec.training.report import write_report
from semanticspec.training.train import TrainConfig, calibrate, candidates, fit_best, train
from tests.support.collecting import HIDDEN, make_card, make_probe, make_reading, run_collect, synthetic

# --- figures -----------------------------------------------------------------------------------------------


def rows(count: int = 80, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Estimates with ties, soft labels, and how often each row counts, in three resamples."""
    generator = torch.Generator().manual_seed(seed)
    estimates = torch.randint(0, 20, (count,), generator=generator).double() / 20
    labels = (estimates + torch.randn(count, generator=generator)).clamp(0, 1).mul(10).round() / 10
    weights = torch.randint(0, 4, (3, count), generator=generator).double()
    return estimates, labels, weights


def test_figures_are_those_of_scikit_learn_and_scipy() -> None:
    estimates, labels, weights = rows()
    positive = labels >= 0.5
    found = {
        "auroc": area_under_roc(estimates, positive, weights),
        "average precision": average_precision(estimates, positive, weights),
        "r2": r_squared(estimates, labels, weights),
        "mae": mean_absolute_error(estimates, labels, weights),
        "spearman": spearman(estimates, labels, weights),
    }
    e, y, p = estimates.numpy(), labels.numpy(), positive.numpy()
    for place, w in enumerate(weights.numpy()):
        times = w.astype(int)
        expected = {
            "auroc": reference.roc_auc_score(p, e, sample_weight=w),
            "average precision": reference.average_precision_score(p, e, sample_weight=w),
            "r2": reference.r2_score(y, e, sample_weight=w),
            "mae": reference.mean_absolute_error(y, e, sample_weight=w),
            "spearman": stats.spearmanr(np.repeat(e, times), np.repeat(y, times)).statistic,
        }
        assert {name: float(values[place]) for name, values in found.items()} == pytest.approx(expected)


def test_calibration_error_by_hand() -> None:
    estimates = torch.tensor([0.05, 0.05, 0.92, 0.98])
    labels = torch.tensor([0.0, 0.2, 1.0, 0.5])
    # First bin: 0.05 against 0.1; last bin (weights 1 and 3): 0.965 against 0.625.
    error = calibration_error(estimates, labels, torch.tensor([[1.0, 1.0, 1.0, 3.0]]).double())
    assert float(error) == pytest.approx((2 * 0.05 + 4 * 0.34) / 6)


def test_figures_that_cannot_be_given_are_not_numbers() -> None:
    weights = torch.ones(1, 3).double()
    same = torch.ones(3)
    assert area_under_roc(same, same > 0, weights).isnan().all()
    assert r_squared(same, same, weights).isnan().all()
    assert spearman(same, torch.arange(3.0), weights).isnan().all()


def test_the_bootstrap_moves_whole_problems() -> None:
    names = [f"problem {i // 5}" for i in range(200)]
    drawn = torch.arange(200).double() % 3 + 1
    boot = ProblemBootstrap(names, drawn, resamples=400)
    assert torch.equal(boot.weights[0], drawn)
    times = (boot.weights / drawn).reshape(401, 40, 5)
    assert (times == times[:, :, :1]).all()
    assert (times[:, :, 0].sum(1) == 40).all()
    values = torch.randn(40, generator=torch.Generator().manual_seed(3)).double().repeat_interleave(5)
    boot = ProblemBootstrap(names, torch.ones(200), resamples=4000)
    interval = boot.interval(lambda w: (w * values).sum(1) / w.sum(1))
    error = float(values[::5].std(correction=0)) / 40**0.5  # of a mean over 40 problems, not 200 rows
    assert interval.value == pytest.approx(float(values.mean()))
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_signals_that_were_not_recorded_are_left_out() -> None:
    with_ranks = TokenSignals((-1.0, -2.0), (1, 2), (0.5, 0.5))
    without = TokenSignals((-1.0, -2.0))
    assert set(signal_values(("mean", "agreement", "entropy"), [with_ranks])) == {
        "mean",
        "agreement",
        "entropy",
    }
    assert signal_values(("mean", "agreement"), [with_ranks, without])["mean"].tolist() == [-1.5, -1.5]
    assert set(signal_values(("mean", "agreement"), [with_ranks, without])) == {"mean"}


# --- calibration -------------------------------------------------------------------------------------------


def miscalibrated(slope: float, offset: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, list[str]]:
    logits = torch.randn(2000, generator=torch.Generator().manual_seed(0)) * 2
    labels = torch.sigmoid(slope * logits + offset)
    return logits, labels, torch.ones(2000), [f"problem {i % 50}" for i in range(2000)]


def test_a_line_between_logits_is_found_again() -> None:
    logits, labels, weights, groups = miscalibrated(0.5, 1.0)
    fitted, losses = choose(logits, labels, weights, groups, "auto")
    assert fitted.kind == "platt"
    assert fitted.values.tolist() == pytest.approx([0.5, 1.0], abs=0.02)
    assert losses["platt"] < losses["none"]


def test_a_curve_is_found_again() -> None:
    logits, _, weights, groups = miscalibrated(1.0, 0.0)
    labels = 0.1 + 0.3 * (logits > -1).float() + 0.5 * (logits > 1).float()
    fitted, losses = choose(logits, labels, weights, groups, "auto")
    assert fitted.kind == "isotonic"
    assert losses["isotonic"] == min(losses.values())
    places = torch.tensor([-50.0, -2.0, 0.0, 2.0, 50.0])
    assert fitted.apply(places).tolist() == pytest.approx([0.1, 0.1, 0.4, 0.9, 0.9], abs=1e-3)
    rising = fitted.apply(torch.linspace(-6, 6, 500))
    assert (rising.diff() >= -1e-6).all()


def test_what_cannot_be_calibrated_is_left_alone() -> None:
    logits, labels, weights, _ = miscalibrated(1.0, 0.0)
    assert choose(logits, labels, weights, ["one"] * 2000, "auto") == (NO_CALIBRATION, {})
    assert choose(logits, torch.zeros(2000), weights, ["one"] * 2000, "platt")[0].kind == "none"
    assert choose(logits, 1 - labels, weights, ["one"] * 2000, "platt")[0].kind == "none"
    with pytest.raises(ProbeError, match="platt"):
        Calibration("platt", torch.zeros(3))
    with pytest.raises(ConfigError, match="calibration is 'magic'"):
        TrainConfig(calibration="magic")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "calibration",
    [
        Calibration("platt", torch.tensor([2.0, -1.0])),
        Calibration("isotonic", torch.tensor([[-1.0, 0.5, 2.0], [0.1, 0.5, 0.9]])),
    ],
)
def test_a_calibrated_probe_is_loaded_without_scikit_learn(tmp_path: Path, calibration: Calibration) -> None:
    plain = make_probe()
    probe = Probe(replace(plain.card, calibration=calibration.kind), plain.network, calibration)
    probe.save(tmp_path)
    readings = [make_reading(seed) for seed in range(8)]
    estimates = Probe.load(tmp_path).estimate_many(readings)
    assert estimates == probe.estimate_many(readings)
    assert estimates != plain.estimate_many(readings)
    code = (
        "import sys; sys.modules['sklearn'] = None; sys.modules['scipy'] = None\n"
        f"from semanticspec.probes import Probe; print(Probe.load({str(tmp_path)!r}).calibration.kind)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == calibration.kind
    with pytest.raises(ProbeError, match="its card says 'none'"):
        Probe(plain.card, plain.network, calibration)


# --- estimators --------------------------------------------------------------------------------------------


def test_components_are_the_principal_ones(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(300, HIDDEN + 1, generator=generator) @ torch.randn(7, 7, generator=generator)
    network = ProbeNetwork(HIDDEN + 1, (4,), num_state=HIDDEN, components=2)
    network.fit_scaler(inputs)
    assert network.projection is not None
    scaled = ((inputs - network.mean) / network.scale)[:, :HIDDEN]
    mine = network.projection(scaled).detach()
    theirs = torch.from_numpy(PCA(2, whiten=True).fit_transform(scaled.numpy()))
    assert torch.allclose(mine.abs(), theirs.abs().float(), atol=0.02)
    card = make_card(features=("mean",), widths=(4,), components=2)
    Probe(card, network).save(tmp_path)
    loaded = Probe.load(tmp_path)
    assert torch.equal(loaded.network(inputs), network(inputs))
    assert loaded.card.estimator == "components"
    with pytest.raises(ConfigError, match="components"):
        make_card(components=HIDDEN + 1)


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


def test_calibration_is_fitted_on_drafted_rows_of_validation_problems() -> None:
    examples = synthetic(60)
    config = TrainConfig(widths=(8,), max_epochs=5, calibration="platt")
    fitted, _ = fit_best(examples.of_split("train"), examples.of_split("validation"), "target", config)
    validation = examples.of_split("validation")
    before, _ = calibrate(fitted, validation)
    labels = torch.where(validation.drafted, validation.labels, 1 - validation.labels)
    after, _ = calibrate(fitted, replace(validation, labels=labels))
    assert torch.equal(before.values, after.values)


# --- the stage ---------------------------------------------------------------------------------------------


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
    assert "http" not in page
    assert "{{" not in page
    assert " <small>[" in page
    content = read_evaluation(tmp_path)
    assert content == json.loads(evaluation.to_json(), parse_constant=pytest.fail)
    assert f"{content['after']['auroc']['value']:.3f}" in page
    assert len(content["ablations"]) == NUM_VARIANTS
    signals = content["signals"]
    best = max(signals, key=lambda name: signals[name]["auroc"]["value"])
    assert content["best_signal"] == best
    difference = content["after"]["auroc"]["value"] - signals[best]["auroc"]["value"]
    assert content["differences"]["auroc"]["value"] == pytest.approx(difference, abs=2e-5)


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
