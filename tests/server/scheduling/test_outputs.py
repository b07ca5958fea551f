"""What a client gets of an output: its text whole and streamed, its usage, and where it ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from semanticspec import generate
from semanticspec.config import with_options
from tests.support.byte_pairs import OPENS_THINKING, pair_of_characters, pair_that_writes
from tests.support.serving import CONFIG, Live, endless, events_of, live, own_result, scripted_pair

THINKS = ("<eos>", "<think>", "</think>")
SETTINGS = [
    {"rule": "semantic", "optimizations": "none"},
    {"rule": "semantic", "optimizations": "default"},
    {"rule": "token", "optimizations": "default"},
]
by_setting = pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: f"{s['rule']}-{s['optimizations']}")


async def streamed(server: Live, content: str = "a", **fields: Any) -> dict[str, Any]:
    """Streams a chat; returns the parts in the shape of `whole`."""
    chunks = await events_of(
        await server.chat(content, stream=True, stream_options={"include_usage": True}, **fields)
    )
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    return {
        "content": "".join(choice["delta"].get("content", "") for choice in choices),
        "reasoning": "".join(choice["delta"].get("reasoning", "") for choice in choices) or None,
        "finish_reason": [choice["finish_reason"] for choice in choices if choice["finish_reason"]],
        "usage": chunks[-1]["usage"],
    }


async def whole(server: Live, content: str = "a", **fields: Any) -> dict[str, Any]:
    """Sends a chat; returns its first choice and the usage."""
    body = (await server.chat(content, **fields)).json()
    message = body["choices"][0]["message"]
    return {
        "content": message["content"],
        "reasoning": message["reasoning"],
        "finish_reason": [body["choices"][0]["finish_reason"]],
        "usage": body["usage"],
    }


@by_setting
async def test_usage_ends_at_the_token_that_completes_a_stop_string(settings) -> None:
    async with live(pair_that_writes("abcdef\n\nabcghi\n\nabc"), **settings) as server:
        for stop, text, num_tokens in (("cd", "ab", 4), ("f\n\na", "abcde", 8), ("bcg", "abcdef\n\na", 11)):
            for answer in (await whole(server, stop=stop), await streamed(server, stop=stop)):
                assert answer["content"] == text
                assert answer["finish_reason"] == ["stop"]
                assert answer["usage"]["completion_tokens"] == num_tokens  # \n\n is one token


@by_setting
async def test_a_stop_string_within_the_length_limit_ends_the_output_first(settings) -> None:
    async with live(pair_that_writes("abcdef\n\nab"), **settings) as server:
        for answer in (
            await whole(server, stop="c", max_tokens=5),
            await streamed(server, stop="c", max_tokens=5),
            await whole(server, stop="c", max_tokens=3),  # completed by the last token that fits
        ):
            assert (answer["finish_reason"], answer["usage"]["completion_tokens"]) == (["stop"], 3)
            assert answer["content"] == "ab"
        cut = await whole(server, stop="cd", max_tokens=3)
        assert (cut["finish_reason"], cut["content"], cut["usage"]["completion_tokens"]) == (
            ["length"],
            "abc",
            3,
        )


@by_setting
async def test_an_end_of_text_within_the_length_limit_ends_the_output_first(settings) -> None:
    async with live(pair_that_writes("abc"), **settings) as server:
        for limit, reason, num_tokens in ((6, "stop", 4), (4, "stop", 4), (3, "length", 3)):
            answer = await whole(server, max_tokens=limit)
            assert (answer["finish_reason"], answer["usage"]["completion_tokens"]) == ([reason], num_tokens)
            assert answer["content"] == "abc"


@by_setting
@pytest.mark.parametrize("stop", [None, "</think>\n\nfour, fo", "our, f"], ids=["none", "tag", "answer"])
@pytest.mark.parametrize("added", [THINKS, THINKS[:1]], ids=["tags are tokens", "tags are text"])
async def test_token_counts_agree_at_every_length(settings, stop, added) -> None:
    pair = pair_that_writes("one\n\ntwo\n\n</think>\n\nfour, four", added=added, template=OPENS_THINKING)
    config = with_options(CONFIG, **settings)
    async with live(pair, **settings) as server:
        for limit in range(1, 65):
            answer = await whole(server, max_tokens=limit, stop=stop)
            usage = answer["usage"]
            reasoning = usage["completion_tokens_details"]["reasoning_tokens"]
            assert 0 <= reasoning <= usage["completion_tokens"] <= limit
            own = generate(
                pair, [{"role": "user", "content": "a"}], with_options(config, max_new_tokens=limit)
            )
            own_ids = own.token_ids
            tag = own.text.find("</think>")
            if stop is None:
                assert usage["completion_tokens"] == len(own_ids) == own.stats.num_tokens
            else:
                assert usage["completion_tokens"] <= len(own_ids)
            ids = own_ids[: usage["completion_tokens"]]
            decoded = [pair.target.vocabulary.decode(ids[:n]) for n in range(len(ids) + 1)]
            expected = next((n for n, text in enumerate(decoded) if "</think>" in text), len(ids))
            assert reasoning == expected, (limit, tag)


@pytest.mark.parametrize("ending", ["nk>four", "k>", ">\n", ">four", ""])
async def test_an_end_of_thinking_inside_a_token_is_split_off(ending) -> None:
    """With tags in plain text a token can hold the end of one and the begin of the answer."""
    text = "so\n\nit is</think>\n\nfour" if ending in (">\n", "") else "so\n\nit is</think>four"
    added = ("<eos>", ending) if ending else ("<eos>",)
    pair = pair_that_writes(text, added=added, template=OPENS_THINKING)
    async with live(pair) as server:
        for answer in (await whole(server), await streamed(server)):
            assert (answer["reasoning"], answer["content"]) == ("so\n\nit is", "four")
    own = generate(pair, [{"role": "user", "content": "a"}], CONFIG)
    assert (own.reasoning, own.answer, own.text) == ("so\n\nit is", "four", text)


@by_setting
@pytest.mark.parametrize("added", [THINKS, THINKS[:1]], ids=["tags are tokens", "tags are text"])
async def test_a_length_limit_inside_of_thinking_leaves_the_answer_empty(settings, added) -> None:
    text = "one\n\ntwo\n\n</think>\n\nfour"
    pair = pair_that_writes(text, added=added, template=OPENS_THINKING)
    async with live(pair, **settings) as server:
        for limit in range(1, len(pair.target.vocabulary.encode("one\n\ntwo\n\n")) + 1):
            for answer in (await whole(server, max_tokens=limit), await streamed(server, max_tokens=limit)):
                assert answer["content"] == ""
                written = pair.target.vocabulary.decode(pair.target.vocabulary.encode(text)[:limit])
                assert answer["reasoning"] == written.rstrip("\n")
                assert answer["finish_reason"] == ["length"]
                assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == limit
            own = generate(
                pair, [{"role": "user", "content": "a"}], with_options(CONFIG, max_new_tokens=limit)
            )
            assert (own.reasoning, own.answer) == (written.rstrip("\n"), "")


@by_setting
async def test_a_stream_has_the_text_of_a_whole_response(settings) -> None:
    """Also the last characters, which can be incomplete where the length limit cuts."""
    async with live(pair_of_characters(), **settings) as server:
        reasons = set()
        for n in range(50):
            stop = None if n % 2 else ["\n\na", "😀字", "aa"]
            fields = {"seed": n, "max_tokens": 5 + n, "stop": stop}
            first, second = await asyncio.gather(
                whole(server, "a" * (1 + n % 5), **fields), streamed(server, "a" * (1 + n % 5), **fields)
            )
            assert first == second
            assert "\ufffd" not in first["content"] + (first["reasoning"] or "")
            reasons.update(first["finish_reason"])
        assert reasons == {"stop", "length"}


async def test_requests_without_a_seed_differ() -> None:
    pair = endless_pair()
    async with live(pair) as server:
        replies = await asyncio.gather(*(server.chat(seed=None, max_tokens=40) for _ in range(8)))
        texts = [reply.json()["choices"][0]["message"]["reasoning"] for reply in replies]
        assert len(set(texts)) == 8
        several = (await server.chat(seed=None, max_tokens=40, n=4)).json()
        assert len({choice["message"]["reasoning"] for choice in several["choices"]}) == 4


async def test_prompts_of_one_request_without_a_seed_differ() -> None:
    async with live(endless_pair()) as server:
        body = {"prompt": ["a"] * 4, "max_tokens": 40}
        choices = (await server.http.post("/v1/completions", json=body)).json()["choices"]
        assert len({choice["text"] for choice in choices}) == 4
        seeded = (await server.http.post("/v1/completions", json=body | {"seed": 3})).json()["choices"]
        assert (
            len({choice["text"] for choice in seeded}) == 1
        )  # a seed gives a prompt its text wherever it stands


@by_setting
async def test_a_seed_gives_the_same_text_beside_other_requests(settings) -> None:
    async with live(pair_of_characters(), **settings) as server:
        alone = [await whole(server, seed=n, max_tokens=40) for n in range(4)]
        others = [server.chat("aa", seed=None, max_tokens=40) for _ in range(8)]
        answers = await asyncio.gather(*(whole(server, seed=n, max_tokens=40) for n in range(4)), *others)
        assert list(answers[:4]) == alone


async def test_an_output_that_a_stop_string_ends_is_counted_up_to_there() -> None:
    own = await own_result()
    stop = own.text[-3:]
    async with live(scripted_pair()) as server:
        full = (await server.chat(stop=stop, speculation={"segments": True})).json()
        chunks = await events_of(await server.chat(stop=stop, stream=True))
        figures = await server.metrics()
    semantic = full["metrics"]["semantic"]
    assert full["usage"]["completion_tokens"] == own.stats.num_tokens - 1  # all but the end of text
    assert semantic["num_segments_accepted"] == own.stats.segments_accepted
    assert semantic["num_segments_rejected"] == own.stats.segments_rejected
    assert semantic["seconds"]["wall"] > 0
    texts = [segment["text"] for segment in semantic["segments"] if segment["accepted"] is not False]
    assert "".join(texts) == own.text.removesuffix(stop)
    assert chunks[-1]["metrics"]["semantic"]["num_segments_rejected"] == own.stats.segments_rejected
    prefix = "semanticspec:"
    assert figures[f"{prefix}generation_tokens_total"] == 2 * full["usage"]["completion_tokens"]
    assert figures[f"{prefix}spec_decode_num_draft_tokens_total"] == 2 * own.stats.drafted_tokens
    assert figures[f"{prefix}prompt_tokens_total"] == 2 * own.stats.prompt_tokens


async def test_a_loop_that_ends_speculation_is_reported() -> None:
    loop = "ab\n\n" * 60
    async with live(pair_that_writes(loop)) as server:
        body = (await server.chat(n=2)).json()
        chunks = await events_of(await server.chat(stream=True, speculation={"segments": True}))
    ended = body["metrics"]["semantic"]["speculation_ended"]
    assert [one["choice"] for one in ended] == [0, 1]
    assert ended[0]["reason"] == "the output repeats itself"
    assert body["choices"][0]["message"]["content"] == loop
    semantic = [chunk["semantic"] for chunk in chunks if "semantic" in chunk]
    (place,) = [n for n, one in enumerate(semantic) if "speculation_ended" in one]
    assert {"choice": 0} | semantic[place]["speculation_ended"] == ended[0]
    assert all(one == {"author": "target"} for one in semantic[place + 1 :])


def endless_pair():
    pair = scripted_pair()
    for model in (pair.target, pair.draft):
        model.engine._next = endless
    return pair
