"""Options that commands share."""

from __future__ import annotations

from dataclasses import replace

import pytest

from semanticspec import DecodingConfig, preset
from semanticspec.commands.options import (
    JudgeOptions,
    PairOptions,
    SamplingOptions,
    comma_separated,
    renamed_levers,
)
from semanticspec.config import PRESETS, with_optimizations
from semanticspec.errors import ConfigError
from semanticspec.training.labels.judges import JudgeConfig
from tests.support.serving import scripted_pair


def test_engine_and_device_are_those_of_both_models_unless_one_has_its_own():
    options = PairOptions(engine="vllm", draft_engine="llama-cpp", device="cpu", target_device="cuda:1")
    assert options.engines == {"target": "vllm", "draft": "llama-cpp"}
    assert options.devices == {"target": "cuda:1", "draft": "cpu"}


@pytest.mark.parametrize("installed", [True, False])
def test_a_gguf_file_runs_on_llama_cpp_where_it_is_installed(monkeypatch, capsys, installed):
    monkeypatch.setattr("semanticspec.engines.registry.find_spec", lambda _: object() if installed else None)
    monkeypatch.setattr("semanticspec.loading.load_pair", lambda *_, **__: None)
    options = PairOptions(target="some/model", draft="draft.gguf")
    chosen = "llama-cpp" if installed else "transformers"
    assert options.engines == {"target": "transformers", "draft": chosen}
    options.load()
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith(f"draft.gguf runs on the engine {chosen} (llama.cpp")
    assert ("--draft-engine transformers" if installed else "pip install") in said
    PairOptions(target="some/model", draft="draft.gguf", draft_engine="llama.cpp").load()
    PairOptions().load()
    assert capsys.readouterr().err == ""


def test_every_option_of_a_pair_reaches_load_pair(monkeypatch):
    loaded = []
    monkeypatch.setattr(
        "semanticspec.loading.load_pair", lambda *args, **kwargs: loaded.append((args, kwargs))
    )
    PairOptions(
        "p",
        "t",
        "d",
        "tp",
        "dp",
        "vllm",
        None,
        "llama-cpp",
        "float32",
        None,
        "float16",
        "cpu",
        None,
        "cuda:1",
    ).load()
    assert loaded == [
        (
            ("t", "d"),
            {
                "target_probe": "tp",
                "draft_probe": "dp",
                "target_engine": "vllm",
                "draft_engine": "llama-cpp",
                "target_dtype": "float32",
                "draft_dtype": "float16",
                "target_device": "cpu",
                "draft_device": "cuda:1",
                "pair": "p",
            },
        )
    ]


def test_options_change_the_preset():
    options = SamplingOptions("paper", "top-k", 2.0, "overlap", None, 9, 0.0, 1.0, 7)
    config = options.config()
    expected = with_optimizations(preset("paper"), ["overlap"])
    expected = replace(
        expected,
        rule=replace(expected.rule, name="top-k", strictness=2.0),
        sampling=replace(expected.sampling, temperature=0.0, top_p=1.0),
        max_new_tokens=9,
        seed=7,
    )
    assert config == expected


def test_without_options_a_preset_stays_as_it_is():
    assert SamplingOptions().config() == DecodingConfig()
    assert SamplingOptions(preset="paper").config() == preset("paper")


@pytest.mark.parametrize(
    ("options", "on"),
    [
        (SamplingOptions(), True),
        (SamplingOptions(optimizations="none"), False),
        (SamplingOptions(optimizations="overlap"), False),
        (SamplingOptions(preset="paper"), False),
        (SamplingOptions(preset="paper", optimizations="token-speculation"), True),
    ],
)
def test_a_pair_turns_its_default_optimizations_on_unless_told_otherwise(options, on):
    assert bool(scripted_pair().resolve(options.config()).num_speculative_tokens) == on


@pytest.mark.parametrize("name", PRESETS)
def test_the_defaults_in_the_help_hold_for_every_preset(name):
    config, default = preset(name), DecodingConfig()
    assert config.sampling == default.sampling
    assert config.max_new_tokens == default.max_new_tokens
    assert config.rule.name == default.rule.name


def test_levers_is_the_old_name_of_optimizations():
    assert renamed_levers("auto", None) == "auto"
    with pytest.warns(FutureWarning, match="--levers is now called --optimizations"):
        assert renamed_levers("auto", "overlap") == "overlap"
    with pytest.warns(FutureWarning, match="removed in 0.2"):
        assert SamplingOptions(levers="overlap").config().overlap


def test_options_of_a_judge():
    options = JudgeOptions("model", "http://localhost/v1", 99, 8, 2, "cpu")
    assert options.config("llm") == JudgeConfig("llm", "model", "http://localhost/v1", "cpu", 8, 2, 99)
    assert JudgeOptions().config("numeric") == JudgeConfig("numeric")
    with pytest.raises(ConfigError, match="--judge-url"):
        options.config("numeric")


def test_comma_separated_values():
    assert comma_separated(" a, b,", "--names") == ("a", "b")
    with pytest.raises(ConfigError, match="--names is empty"):
        comma_separated(" , ", "--names")
