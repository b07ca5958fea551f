"""`semanticspec bench`: packaged pairs, sweeps and lists of values. What a benchmark does: tests/benchmark."""

from __future__ import annotations

import pytest

from semanticspec.commands.bench import described_pair, positive_integers, swept_methods
from semanticspec.commands.options import PairOptions
from semanticspec.errors import ConfigError

PACKAGED = "qwen2.5-coder-1.5b-0.5b"


@pytest.mark.parametrize("name", [None, "demo", "bundled"])
def test_the_bundled_pair_is_the_default(name):
    assert described_pair(PairOptions(pair=name)) == (PairOptions(), "bundled")


def test_a_pair_without_a_name_is_called_after_its_models():
    given = PairOptions(target="t", draft="d")
    assert described_pair(given) == (given, "t + d")


def test_a_packaged_pair_brings_its_models():
    pair, name = described_pair(PairOptions(pair=PACKAGED, dtype="bfloat16"))
    assert name == pair.pair == PACKAGED
    assert pair.target == "Qwen/Qwen2.5-Coder-1.5B-Instruct"
    assert pair.draft == "Qwen/Qwen2.5-Coder-0.5B-Instruct"
    assert pair.dtype == "bfloat16"


def test_options_override_a_packaged_pair():
    pair, _ = described_pair(PairOptions(pair=PACKAGED, target="my/copy", draft_probe="probes/draft"))
    assert pair.target == "my/copy"
    assert (pair.draft, pair.draft_probe) == ("Qwen/Qwen2.5-Coder-0.5B-Instruct", "probes/draft")


def test_an_unknown_pair_and_two_pairs_at_once_are_refused():
    with pytest.raises(ConfigError, match="no pair 'nobody': it is neither a packaged pair"):
        described_pair(PairOptions(pair="nobody"))
    with pytest.raises(ConfigError, match="has its own models"):
        described_pair(PairOptions(pair="demo", target="t", draft="d"))


def test_a_sweep_adds_semantic_and_random_at_each_strictness():
    assert swept_methods(None) == ()
    assert swept_methods("strictness=0.5,2.0") == ("semantic@0.5", "random@0.5", "semantic@2", "random@2")


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ("floor=1", "strictness="),
        ("strictness", "strictness="),
        ("strictness=", "--sweep is empty"),
        ("strictness=1,-2", "expected a number above 0"),
    ],
)
def test_a_sweep_of_another_form_is_refused(sweep, message):
    with pytest.raises(ConfigError, match=message):
        swept_methods(sweep)


def test_several_values_of_concurrency():
    assert positive_integers("1, 4,8", "--concurrency") == (1, 4, 8)


@pytest.mark.parametrize("text", ["0", "-1", "two", "1,1", "1.5", ","])
def test_a_concurrency_that_is_not_a_positive_integer_is_refused(text):
    with pytest.raises(ConfigError, match="--concurrency is"):
        positive_integers(text, "--concurrency")
