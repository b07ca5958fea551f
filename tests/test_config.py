"""Settings are checked when they are made; presets are what they say."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

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
