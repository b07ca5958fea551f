"""Figures compared with scikit-learn and scipy, edge cases, and the bootstrap over problems."""

from __future__ import annotations

from math import isnan

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as reference

from semanticspec.probes.features import TokenSignals
from semanticspec.training.metrics import (
    ProblemBootstrap,
    area_under_roc,
    average_precision,
    calibration_error,
    mean_absolute_error,
    point_estimate,
    r_squared,
    signal_values,
    spearman,
)


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
