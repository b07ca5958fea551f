"""Features of token log-probabilities."""

from __future__ import annotations

import pytest

from semanticspec.errors import ConfigError
from semanticspec.probes.features import FEATURES, TokenSignals, compute_features
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
