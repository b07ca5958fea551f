"""What a pair checks before a request runs."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest

from semanticspec import generate
from semanticspec.decoding.pair import Pair
from semanticspec.records import GREEDY, Sampling
from tests.support.scripted_pairs import RAW, FixedProbe, config, make_pair

LABELLED = Sampling(0.6, 0.95)


class LabelledProbe(FixedProbe):
    sampling = LABELLED


@pytest.fixture
def pair() -> Pair:
    return replace(make_pair(), target_probe=LabelledProbe(0.5), draft_probe=LabelledProbe(1.0))


@pytest.mark.parametrize(
    ("sampling", "said"),
    [
        (
            Sampling(1.0, 0.95),
            r"temperature 1, top-p 0\.95, .* temperature 0\.6, top-p 0\.95: acceptance may be off",
        ),
        (Sampling(0.6, 1.0), r"temperature 0\.6, top-p 1, .* temperature 0\.6, top-p 0\.95"),
        (GREEDY, r"temperature 0, top-p 1, .* temperature 0\.6"),
    ],
)
def test_sampling_other_than_that_of_the_probes_labels_warns_once(
    pair: Pair, sampling: Sampling, said: str
) -> None:
    with pytest.warns(UserWarning, match=said) as seen:
        generate(pair, "a", config(sampling=sampling))
    assert len(seen) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generate(pair, "a", config(sampling=sampling, seed=1))


@pytest.mark.parametrize(
    ("rule", "sampling"), [("semantic", LABELLED), ("top-k", RAW), ("token", RAW), ("never", GREEDY)]
)
def test_the_labels_sampling_and_rules_without_probes_give_no_warning(
    pair: Pair, rule: str, sampling: Sampling
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generate(pair, "a", config(rule, sampling=sampling))


def test_probes_that_do_not_name_their_sampling_give_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generate(make_pair(), "a", config(sampling=GREEDY))
