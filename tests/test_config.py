"""Settings are checked when they are made; presets are what they say."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy
import pytest

from semanticspec import DecodingConfig, RuleConfig, Sampling, preset
from semanticspec.config import RULES, target_alone
from semanticspec.errors import ConfigError


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RuleConfig(name="best"), "rule is 'best'; expected one of semantic"),
        (lambda: RuleConfig(strictness=0), "strictness"),
        (lambda: RuleConfig(target_floor=1.5), "target_floor"),
        (lambda: RuleConfig(strictness=float("nan")), "strictness"),
        (lambda: RuleConfig(accept_rate=1.5), "accept_rate"),
        (lambda: RuleConfig(top_k=0), "top_k"),
        (lambda: DecodingConfig(sampling=Sampling(temperature=-1)), "temperature"),
        (lambda: DecodingConfig(sampling=Sampling(temperature=float("nan"))), "temperature"),
        (lambda: DecodingConfig(sampling=Sampling(top_p=0)), "top_p"),
        (lambda: DecodingConfig(max_new_tokens=0), "max_new_tokens"),
        (lambda: DecodingConfig(seed=-1), "seed"),
        (lambda: preset("fast"), "preset is 'fast'; expected one of default, paper"),
        (lambda: replace(preset("paper"), rule=RuleConfig(name="token")), "bonus token"),
    ],
)
def test_impossible_settings_are_errors(make, message):
    with pytest.raises(ConfigError, match=message):
        make()


def test_lossy_is_said_of_every_rule_that_can_change_the_output():
    lossy = {name: DecodingConfig(rule=RuleConfig(name=name)).lossy for name in RULES}
    assert lossy == {
        "semantic": True,
        "top-k": True,
        "token": False,
        "random": True,
        "always": True,
        "never": False,
    }
    assert not target_alone(DecodingConfig()).lossy


def test_import_is_light():
    """`import semanticspec` loads no torch, transformers or typer."""
    code = "import sys, semanticspec; print(sorted({'torch', 'transformers', 'typer'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"rule": "token"},
            r"rule is 'token'; expected a RuleConfig, for example rule=RuleConfig\('token'\)",
        ),
        ({"rule": "best"}, "with a name of semantic, top-k,"),
        ({"rule": None}, "rule is None"),
        ({"sampling": 0.5}, "sampling is 0.5; expected a Sampling"),
        ({"sampling": Sampling("hot")}, "temperature is 'hot'; expected a number"),
        ({"max_new_tokens": "100"}, "max_new_tokens is '100'; expected a whole number"),
        ({"max_new_tokens": 1e3}, "max_new_tokens is 1000.0; expected a whole number"),
        ({"max_new_tokens": None}, "max_new_tokens is None"),
        ({"max_answer_tokens": "5"}, "max_answer_tokens is '5'; expected a whole number or None"),
        ({"num_speculative_tokens": True}, "num_speculative_tokens is True; expected a whole number"),
        ({"overlap": "no"}, "overlap is 'no'; expected True or False"),
        ({"partial_acceptance": 1}, "partial_acceptance is 1; expected True or False or None"),
        ({"seed": None}, "seed is None"),
        ({"first_segment": 3}, "first_segment is 3; expected draft or target"),
    ],
)
def test_values_of_a_wrong_type_are_told_with_what_is_expected(settings, message):
    with pytest.raises(ConfigError, match=message):
        DecodingConfig(**settings)


def test_a_rules_settings_of_a_wrong_type():
    with pytest.raises(ConfigError, match="strictness is '1'; expected a number"):
        RuleConfig(strictness="1")
    with pytest.raises(ConfigError, match="rule is 5; expected one of"):
        RuleConfig(5)


def test_numbers_of_numpy_are_numbers():
    assert DecodingConfig(seed=numpy.int64(3), bonus_temperature=numpy.float32(0.5)).seed == 3
