"""Features of token log-probabilities."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite, log, log1p

import pytest
import torch

from semanticspec.errors import ConfigError
from semanticspec.probes.features import (
    FEATURES,
    TokenSignals,
    available_features,
    check_features,
    compute_features,
    features_for,
    named_features,
    signals_of,
)
from semanticspec.probes.text_features import TEXT_FEATURES, numbers_in
from semanticspec.records import Reading, SegmentText
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
    text = SegmentText("", "", "")
    impossible = TokenSignals((-1e9,), (90,), (0.0,), (float("inf"),), (-1e9,), text)
    assert all(isfinite(value) for value in compute_features(tuple(FEATURES), impossible))
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
        "first_entropy",
    )
    expected = [0.25, 0.5, log(40), -1.0, 2.0, -20.5, -19.25, 0.25]
    assert compute_features(names, signals) == pytest.approx(expected)


def test_features_of_margins_and_of_the_drafts_pass_by_hand() -> None:
    signals = TokenSignals(
        (-0.5, -3.0, -1.0), margins=(2.0, 0.5, 50.0), draft_logprobs=(-1.0, -0.5, -40.0), text=None
    )
    names = ("mean_margin", "smallest_margin", "first_margin")
    assert compute_features(names, signals) == pytest.approx([7.5, 0.5, 2.0])
    names = ("draft_mean", "draft_sum", "draft_minimum", "difference_sum", "difference_mean")
    assert compute_features(names, signals) == pytest.approx([-21.5 / 3, -21.5, -20.0, 17.0, 17.0 / 3])
    assert compute_features(("difference_minimum",), signals) == pytest.approx([-2.5])
    one_more = replace(signals, draft_logprobs=(-1.0, -0.5, -1.0, -9.0))
    assert compute_features(("difference_minimum",), one_more) == pytest.approx([-2.5])
    other_tokens = replace(signals, draft_logprobs=(-1.0,) * 5)
    with pytest.raises(ConfigError, match="3 tokens of the target and 5 of the draft"):
        compute_features(("difference_minimum",), other_tokens)


def test_features_of_text_by_hand() -> None:
    segment = SegmentText(
        "Ann has 1,000 pens.", "She buys 3.50 more.\n\nSo.\n \n", "1000 + 3.5 = 1003.5, not 7.0"
    )
    assert numbers_in(segment.text) == ["1000", "3.5", "1003.5", "7"]
    found = compute_features(tuple(TEXT_FEATURES), TokenSignals((-1.0,), text=segment))
    assert found == pytest.approx([log1p(4), 0.5, log1p(2), log1p(len(segment.before))])
    empty = compute_features(tuple(TEXT_FEATURES), TokenSignals((-1.0,), text=SegmentText("1", "", "So")))
    assert empty == [0.0] * 4
    assert numbers_in("007 and 0.0 and 3, 4") == ["7", "0", "3", "4"]


def test_features_without_their_signals_are_refused() -> None:
    own_pass = signals_of(Reading((-1.0, -2.0), torch.zeros(3)))
    with pytest.raises(ConfigError, match="agreement"):
        compute_features(("mean", "agreement"), own_pass)
    with pytest.raises(ConfigError, match="entropy, excess_sum need entropies"):
        compute_features(("entropy", "excess_sum"), TokenSignals((-1.0,), (1,)))
    with pytest.raises(ConfigError, match=r"smallest_margin need margins.*collect again into a new folder"):
        compute_features(("smallest_margin",), TokenSignals((-1.0,), (1,)))
    with pytest.raises(ConfigError, match="draft_sum need the draft's log-probabilities"):
        compute_features(("draft_sum",), own_pass)
    drafts = named_features("portable", "draft")
    assert compute_features(drafts, own_pass)
    assert features_for("draft") == (*drafts, *TEXT_FEATURES)
    assert available_features(features_for("draft"), [own_pass]) == drafts
    assert available_features(("mean", "agreement"), [own_pass, TokenSignals((-1.0,), (1,))]) == ("mean",)
    assert features_for("target", joint=True) == tuple(FEATURES)
    of_draft = set(FEATURES) - set(features_for("target"))
    assert len(of_draft) == 6
    assert of_draft <= set(named_features("portable", "target", joint=True))
    assert named_features("all", "target") == features_for("target")
    assert named_features("mean,worst_rank", "target") == ("mean", "worst_rank")
    assert set(features_for("target")) - set(named_features("portable", "target")) == {
        *TEXT_FEATURES,
        "mean_margin",
        "smallest_margin",
        "first_margin",
        "first_entropy",
        "entropy",
        "highest_entropy",
        "excess_sum",
        "excess_minimum",
    }
    check_features(tuple(FEATURES), "target")
    with pytest.raises(ConfigError, match="draft's probe cannot use the feature 'entropy'"):
        check_features(("mean", "entropy"), "draft")
