"""`generate` and `decode`: one default, overrides for a call, lists of prompts, and arguments of wrong types."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from semanticspec import DecodingConfig, RuleConfig, Sampling, generate, generate_async, preset
from semanticspec.config import CONTROL_RULES, PRESETS, target_alone
from semanticspec.decoding.generate import decode
from semanticspec.decoding.pair import Model, Pair
from semanticspec.engines.scripted import ScriptedEngine
from semanticspec.errors import ConfigError, PromptError
from semanticspec.records import Result
from semanticspec.text.chat import PlainText
from tests.support.scripted_pairs import RAW, config, draft_says, make_pair
from tests.support.vocabularies import make_vocabulary

USER = {"role": "user", "content": "a"}


def proposals(result: Result) -> bool:
    return any(segment.proposals for segment in result.segments)


def test_a_default_configuration_is_the_default() -> None:
    pair = make_pair(p_target=0.01)
    without, given = generate(pair, "a"), generate(pair, "a", DecodingConfig())
    assert proposals(given)
    assert given.token_ids == without.token_ids
    assert generate(pair, "a", preset("default")).token_ids == without.token_ids
    assert generate(pair, "a", max_new_tokens=14_000).token_ids == without.token_ids


def test_other_settings_keep_the_default_optimizations() -> None:
    pair = make_pair(p_target=0.01)
    assert proposals(generate(pair, "a", DecodingConfig(max_new_tokens=50, sampling=RAW)))
    assert not proposals(generate(pair, "a", DecodingConfig(num_speculative_tokens=0)))


def test_what_is_left_open_is_on_where_the_pair_supports_it() -> None:
    pair = make_pair()
    opened = replace(config(seed=3), partial_acceptance=None, num_speculative_tokens=None, overlap=True)
    on = pair.resolve(opened)
    assert on == config(seed=3, partial_acceptance=True, num_speculative_tokens=12, overlap=True)
    assert on.optimizations == ("partial-acceptance", "token-speculation", "overlap")
    assert pair.resolve(on) == on
    assert pair.resolve(target_alone(opened)) == target_alone(config(seed=3, overlap=True))
    blind = ScriptedEngine(draft_says, 9)
    blind.info = replace(blind.info, capabilities=replace(blind.info.capabilities, distributions=False))
    without = Pair(pair.target, Model(blind, pair.draft.vocabulary))
    other = Pair(pair.target, Model(ScriptedEngine(draft_says, 9), make_vocabulary(["d", "c", "b", "a"])))
    for unable in (without, other):
        assert unable.resolve(opened) == config(seed=3, overlap=True)


@pytest.mark.parametrize("rule", sorted(CONTROL_RULES))
def test_controls_have_no_optimizations_unless_they_are_asked_for(rule: Any) -> None:
    """With token-level speculation, the draft would write a part of what `never` outputs."""
    pair = make_pair()
    assert pair.resolve(DecodingConfig(rule=RuleConfig(rule))).optimizations == ()
    assert pair.resolve(DecodingConfig(rule=RuleConfig(rule), num_speculative_tokens=4)).optimizations
    if rule == "never":
        assert generate(pair, "a", DecodingConfig(rule=RuleConfig(rule))).stats.draft_tokens == 0


@pytest.mark.parametrize("name", PRESETS)
def test_the_papers_preset_has_no_optimizations(name: str) -> None:
    assert bool(make_pair().resolve(preset(name)).optimizations) == (name == "default")


def test_overrides_replace_settings_for_one_call() -> None:
    pair = make_pair()
    base = config(seed=1)
    changed = replace(base, max_new_tokens=7, seed=5, sampling=Sampling(0.0, 1.0), rule=RuleConfig("top-k"))
    overrides: Any = {"max_new_tokens": 7, "seed": 5, "temperature": 0, "top_p": 1, "rule": "top-k"}
    assert generate(pair, "a", base, **overrides).token_ids == generate(pair, "a", changed).token_ids
    assert generate(pair, "a", base, max_new_tokens=None).token_ids == generate(pair, "a", base).token_ids
    assert proposals(generate(pair, "a", config("never"), optimizations="token-speculation"))
    assert proposals(generate(pair, "a", preset("paper"), optimizations="auto", max_new_tokens=60))
    assert not proposals(generate(pair, "a", optimizations="none"))
    assert len(generate(pair, "a", max_new_tokens=3).token_ids) == 3


async def test_a_list_of_prompts_gives_a_list_of_the_same_results() -> None:
    pair, chosen = make_pair(), config(seed=2)
    prompts = ["a", "ab", "b", "a"]
    together = generate(pair, prompts, chosen)
    assert [result.token_ids for result in together] == [
        generate(pair, prompt, chosen).token_ids for prompt in prompts
    ]
    assert together[0].token_ids == together[3].token_ids
    assert len(await generate_async(pair, [[USER], [USER, USER]], max_new_tokens=5)) == 2
    assert len(generate(pair, [PlainText("a")], max_new_tokens=5)) == 1
    assert isinstance(generate(pair, [USER], max_new_tokens=5), Result)  # messages are one prompt


def test_a_bad_prompt_in_a_list_is_told_before_any_is_answered() -> None:
    pair = make_pair()
    with pytest.raises(PromptError, match="empty"):
        generate(pair, ["a", " "])
    assert isinstance(pair.draft.engine, ScriptedEngine)
    assert pair.draft.engine.calls == []


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (5, "the prompt is 5; expected a string, or messages"),
        (b"a", "the prompt is b'a'; expected a string"),
        (None, "the prompt is None; expected a string"),
        ([], "the prompt has no messages"),
        (["a", 5], "the prompt is 5; expected"),
        ([USER, "a"], r"messages\[0\]|the prompt is \{'role'"),
        ([{"role": "user"}], r"messages\[0\] has no content"),
        ([{"content": "a"}], r"messages\[0\] has no role"),
        ([{"role": "human", "content": "a"}], r"role 'human'; expected one of system, user, assistant, tool"),
        ([{"role": "developer", "content": "a"}], "use 'system'"),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}]}], "join the text of the parts"),
        ([{"role": "user", "content": None}], r"the content of messages\[0\] is None; expected a string"),
        ("a\udcff", "not valid Unicode"),
    ],
)
def test_a_prompt_of_a_wrong_type_is_told_with_its_fix(prompt: Any, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        generate(make_pair(), prompt)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda _: generate("Qwen/Qwen3-8B", "a"), "expected what load_pair returns"),  # type: ignore[call-overload]
        (
            lambda pair: generate(pair, "a", "paper"),
            "the configuration is 'paper'; expected a DecodingConfig",
        ),
        (lambda pair: generate(pair, "a", {"seed": 1}), "expected a DecodingConfig"),
        (
            lambda pair: generate(pair, "a", max_tokens=5),
            "there is no option 'max_tokens'; expected any of rule,",
        ),
        (lambda pair: generate(pair, "a", temperature="hot"), "temperature is 'hot'; expected a number"),
        (lambda pair: generate(pair, "a", rule=RuleConfig("token")), "rule is RuleConfig"),
        (
            lambda pair: generate(pair, "a", optimizations=["overlap"]),
            "expected a string such as 'overlap,adaptive'",
        ),
        (lambda pair: decode(pair, ["a", "b"]), r"messages\[0\] is 'a'; expected a dict"),  # type: ignore[arg-type]
    ],
)
def test_an_argument_of_a_wrong_type_is_told_with_its_fix(call: Callable[[Pair], Any], message: str) -> None:
    with pytest.raises((ConfigError, PromptError), match=message):
        call(make_pair())
