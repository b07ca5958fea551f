"""Features of token log-probabilities."""

from __future__ import annotations

from math import log

import pytest
import torch

from semanticspec.errors import ConfigError
from semanticspec.probes.features import (
    FEATURES,
    TokenSignals,
    check_features,
    compute_features,
    features_for,
    named_features,
    signals_of,
)
from semanticspec.records import Reading
from semanticspec.training.train import (
    TrainConfig,
)


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


def test_features_of_ranks_and_entropies_by_hand() -> None:
    signals = TokenSignals((-0.5, -3.0, -1.0, -50.0), (1, 3, 2, 40), (0.25, 2.0, 1.0, 0.75))
    names = (
        "agreement",
        "top_2_share",
        "worst_rank",
        "entropy",
        "highest_entropy",
        "excess_sum",
        "excess_minimum",
    )
    assert compute_features(names, signals) == pytest.approx([0.25, 0.5, log(40), -1.0, 2.0, -20.5, -19.25])


def test_features_without_their_signals_are_refused() -> None:
    own_pass = signals_of(Reading((-1.0, -2.0), torch.zeros(3)))
    with pytest.raises(ConfigError, match="agreement"):
        compute_features(("mean", "agreement"), own_pass)
    with pytest.raises(ConfigError, match="entropy, excess_sum need entropies"):
        compute_features(("entropy", "excess_sum"), TokenSignals((-1.0,), (1,)))
    assert len(compute_features(features_for("draft"), own_pass)) == len(FEATURES) - 7
    assert features_for("target") == tuple(FEATURES)
    assert named_features("all", "target") == tuple(FEATURES)
    assert named_features("mean,worst_rank", "target") == ("mean", "worst_rank")
    assert set(FEATURES) - set(named_features("portable", "target")) == {
        "entropy",
        "highest_entropy",
        "excess_sum",
        "excess_minimum",
    }
    assert named_features("portable", "draft") == features_for("draft")
    check_features(tuple(FEATURES), "target")
    with pytest.raises(ConfigError, match="draft's probe cannot use the feature 'entropy'"):
        check_features(("mean", "entropy"), "draft")
