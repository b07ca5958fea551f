"""Methods: names, and what they are made of."""

from __future__ import annotations

import random

import pytest

from semanticspec.benchmark.methods import METHODS, check_names, make_method, random_control
from semanticspec.config import DecodingConfig, RuleConfig
from semanticspec.errors import ConfigError
from semanticspec.records import Result, Segment, Stats


def test_known_names_are_taken():
    check_names(["semantic", "semantic@2+partial-acceptance+token-speculation", "never+overlap", "hf-target"])
    check_names(["semantic", "semantic+default", "semantic+default+overlap", "semantic@2+default"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("magic", "no method 'magic'; choose from target, draft"),
        ("target@2", "no method 'target@2'"),
        ("hf-target@2", "no method 'hf-target@2'"),
        ("semantic@fast", "the strictness in 'semantic@fast' is 'fast'; expected a number above 0"),
        ("semantic@0", "is '0'; expected a number above 0"),
        ("semantic+magic", "optimization is 'magic'"),
        ("target+overlap", "'target.overlap' takes no optimizations; these methods do: semantic"),
        ("hf-target+overlap", "takes no optimizations"),
    ],
)
def test_unknown_names_are_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        check_names([name])


@pytest.mark.parametrize(
    ("name", "same"),
    [
        ("target", "target"),
        ("semantic+default", "semantic+partial-acceptance+token-speculation"),
        ("semantic+token-speculation+partial-acceptance", "semantic+default"),
        ("semantic+overlap+default", "semantic+default+overlap+token-speculation"),
        ("semantic@2", "semantic@2.0"),
    ],
)
def test_two_spellings_of_a_method_are_refused(name, same):
    with pytest.raises(ConfigError, match="is given twice"):
        check_names([name, "draft", same])


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_old_names_of_optimizations_are_the_same_method():
    with pytest.raises(
        ConfigError, match=r"'semantic.prefix.tokens' is given twice, also as 'semantic.default'"
    ):
        check_names(["semantic+default", "semantic+prefix+tokens"])


def test_default_stands_for_the_default_optimizations_and_stays_in_the_name(pair):
    method = make_method("semantic+default", pair, DecodingConfig())
    assert method.name == "semantic+default"
    assert (method.config.partial_acceptance, method.config.num_speculative_tokens) == (True, 12)


@pytest.mark.parametrize("name", ["random+default", "random@2+overlap"])
def test_the_random_control_keeps_its_optimizations_and_rates(pair, name):
    rule = RuleConfig("random", accept_rate_by_length=((5, 0.25), (9, 0.75)))
    config = make_method(name, pair, DecodingConfig(rule=rule)).config
    assert config.rule.accept_rate_by_length == rule.accept_rate_by_length
    assert config.partial_acceptance is ("default" in name)
    assert config.overlap is ("overlap" in name)


async def test_the_draft_alone_goes_by_its_name(pair):
    config = DecodingConfig(max_new_tokens=20)
    method = make_method("draft", pair, config)
    result = await method.solve("Mia has 14 pens. How many pens does Mia have?", 0)
    assert method.lossy
    assert result.stats.draft_tokens == result.stats.num_tokens == 20
    assert result.stats.rewrite_s == 0 < result.stats.draft_s
    assert {segment.author for segment in result.segments} == {"draft"}


def test_every_own_method_can_be_made(pair):
    config = DecodingConfig()
    lossy = {name: make_method(name, pair, config).lossy for name in METHODS}
    assert {name for name, is_lossy in lossy.items() if not is_lossy} == {"target", "token", "never"}
    assert make_method("semantic@2", pair, config).config.rule.strictness == 2
    assert make_method("random@2", pair, config).config.rule.name == "random"


def test_random_control_has_the_pilots_rate_at_every_length():
    generator = random.Random(0)

    def result() -> Result:
        segments = tuple(
            Segment("draft", "", length, accepted=generator.random() < (0.9 if length <= 10 else 0.2))
            for length in (5, 9, 20, 30)
        )
        return Result("", (), segments, Stats(), "stop", True)

    rule = random_control([result() for _ in range(2000)], RuleConfig())
    assert rule.name == "random"
    rates = dict(rule.accept_rate_by_length)
    assert rates[5] == pytest.approx(0.9, abs=0.03)
    assert rates[30] == pytest.approx(0.2, abs=0.03)
    with pytest.raises(ConfigError, match="pilot"):
        random_control([], RuleConfig())
