"""Stop strings: text, token ids, segments and counts end at the token that completes one, whoever wrote it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from semanticspec import DecodingConfig, Result, generate
from semanticspec.config import target_alone
from semanticspec.decoding.pair import Pair
from semanticspec.errors import ConfigError
from semanticspec.records import TextWritten
from tests.support.byte_pairs import OPENS_THINKING, pair_of_characters, pair_that_writes
from tests.support.scripted_pairs import collect, config, make_pair, segment_texts

CONFIGS = {
    "accepted": config("always"),
    "semantic": config(),
    "overlap": config(overlap=True),
    "partial acceptance": config(partial_acceptance=True, num_speculative_tokens=3),
    "added token": config(bonus_token=True),
    "token": config("token"),
    "token in proposals": config("token", num_speculative_tokens=3),
    "never": config("never"),
    "drafted answer": config("token", speculate_answer=True),
    "target alone": target_alone(config()),
}
by_config = pytest.mark.parametrize("decoding", CONFIGS.values(), ids=CONFIGS)


def first_stop(pair: Pair, ids: Sequence[int], stops: Sequence[str]) -> tuple[str, int]:
    """The text before the stop string that is complete first, and the number of tokens up to the one that does it."""
    decode = pair.target.vocabulary.decode
    for count in range(1, len(ids) + 1):
        text = decode(ids[:count]).rstrip("\ufffd")
        found = [(text.index(stop) + len(stop), text.index(stop)) for stop in stops if stop in text]
        if found:
            return text[: min(found)[1]], count
    return decode(ids).rstrip("\ufffd"), len(ids)


async def check(pair: Pair, decoding: DecodingConfig, stops: Sequence[str]) -> Result:
    """Compares a run with stop strings to the same run without them."""
    free = (await collect(pair, decoding))[-1].result
    events = await collect(pair, replace(decoding, stop=stops))
    result = events[-1].result
    text, count = first_stop(pair, free.token_ids, stops)
    assert (result.text, len(result.token_ids)) == (text, count)
    assert result.token_ids == free.token_ids[:count]
    written = [event for event in events if isinstance(event, TextWritten)]
    assert "".join(event.text for event in written) == result.text
    assert tuple(i for event in written for i in event.token_ids) == result.token_ids
    assert result.stats.num_tokens == count
    assert result.stats.draft_tokens == sum(len(e.token_ids) for e in written if e.author == "draft")
    assert segment_texts(result.segments) == result.text
    assert sum(s.num_tokens for s in result.segments if s.accepted is not False) == count
    if count < len(free.token_ids):
        assert result.finish_reason == "stop"
    return result


@by_config
async def test_everything_ends_at_the_token_that_completes_a_stop_string(decoding) -> None:
    inside = 0
    for seed in range(3):
        whole = generate(make_pair(), "a", replace(decoding, seed=seed)).text
        for start in range(0, len(whole) - 1, 5):
            for length in (1, 3, 7):
                result = await check(
                    make_pair(), replace(decoding, seed=seed), [whole[start : start + length]]
                )
                inside += not result.text.endswith("\n\n") and result.text != whole
    assert inside > 5


@pytest.mark.parametrize("rule", ["always", "token", "never"])
async def test_stop_strings_in_characters_of_several_tokens(rule) -> None:
    for seed in range(6):
        for stops in (["😀"], ["字é", "\n\n字"], ["</think>"]):
            await check(pair_of_characters(), config(rule, seed=seed, max_new_tokens=60), stops)


async def test_the_stop_string_that_is_complete_first_counts_and_what_a_token_has_after_it_is_cut() -> None:
    pair = pair_that_writes("abcdefg", added=("<eos>", "cde"))
    result = await check(pair, config("always"), ["defg", "bcd"])
    assert (result.text, len(result.token_ids)) == ("a", 3)


async def test_text_held_back_is_released_with_its_author_when_no_stop_string_follows() -> None:
    pair = pair_that_writes("abc\n\nabx")
    events = await collect(pair, config("always", stop=["c\n\nabc"]))
    assert events[-1].result.text == "abc\n\nabx"
    alone = await collect(pair, replace(target_alone(config()), stop=["bxy"]))
    assert alone[-1].result.text == "abc\n\nabx"  # the end of the text shows that it is none
    written = [event for event in alone if isinstance(event, TextWritten)]
    assert (written[-1].text, written[-1].token_ids) == ("bx", ())


@pytest.mark.parametrize("rule", ["always", "token", "never"])
def test_a_stop_string_in_a_drafted_segment_comes_before_the_length_limit(rule) -> None:
    pair = pair_that_writes("abcdef\n\nab")
    for limit, reason, count in ((5, "stop", 3), (3, "stop", 3), (2, "length", 2)):
        result = generate(pair, "a", config(rule, max_new_tokens=limit, stop="c"))
        assert (result.finish_reason, len(result.token_ids), result.text) == (reason, count, "ab")


def test_a_stop_string_in_the_thinking_leaves_the_answer_empty() -> None:
    pair = pair_that_writes("so\n\nit is</think>four", template=OPENS_THINKING)
    result = generate(pair, [{"role": "user", "content": "a"}], config("always", stop="it"))
    assert (result.reasoning, result.answer) == ("so", "")
    tag = generate(pair, [{"role": "user", "content": "a"}], config("always", stop="</think>"))
    assert (tag.reasoning, tag.answer, tag.finish_reason) == ("so\n\nit is", "", "stop")


@pytest.mark.parametrize("stop", ["", ("a", ""), (1,)])
def test_empty_stop_strings_are_refused(stop: Any) -> None:
    with pytest.raises(ConfigError, match=r"stop is .*; expected strings that are not empty"):
        DecodingConfig(stop=stop)
