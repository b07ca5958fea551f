"""Both generation endpoints, through the official openai client and plain HTTP."""

from __future__ import annotations

import asyncio

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.completion import Completion

from tests.support.serving import USER, events_of, live, own_result, scripted_pair


async def test_chat_completion_equals_direct_decoding():
    own = await own_result()
    assert own.stats.segments_accepted
    assert own.stats.segments_rejected
    async with live(scripted_pair()) as server:
        answer = await server.openai.chat.completions.create(model="scripted", messages=USER, seed=1)
    ChatCompletion.model_validate(answer.model_dump(), strict=True)
    message = answer.choices[0].message
    assert (message.content, message.reasoning, message.reasoning_content) == (
        own.answer,
        own.reasoning,
        own.reasoning,
    )
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens == own.stats.prompt_tokens
    assert answer.usage.completion_tokens == own.stats.num_tokens
    thinking = own.token_ids.index(8) + 1
    assert answer.usage.completion_tokens_details.reasoning_tokens == thinking
    speculative, semantic = answer.metrics["speculative_decoding"], answer.metrics["semantic"]
    assert speculative["num_draft_tokens"] == own.stats.drafted_tokens
    assert speculative["num_accepted_draft_tokens"] == own.stats.draft_tokens
    assert speculative["draft_acceptance_rate"] == own.stats.draft_tokens / own.stats.drafted_tokens
    assert semantic["num_segments_rejected"] == own.stats.segments_rejected
    assert "segments" not in semantic


async def test_streamed_chat_equals_direct_decoding():
    own = await own_result()
    async with live(scripted_pair()) as server:
        stream = await server.openai.chat.completions.create(
            model="scripted", messages=USER, seed=1, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    for chunk in chunks:
        ChatCompletionChunk.model_validate(chunk.model_dump(), strict=True)
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == own.answer
    assert "".join(getattr(delta, "reasoning", "") for delta in deltas) == own.reasoning
    assert "".join(getattr(delta, "reasoning_content", "") for delta in deltas) == own.reasoning
    assert sum(1 for delta in deltas if getattr(delta, "reasoning", "")) > 3  # in pieces, as it was decided
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == own.stats.num_tokens
    assert chunks[-1].metrics["speculative_decoding"]["num_draft_tokens"] == own.stats.drafted_tokens


async def test_completions_continue_the_text_without_a_template():
    async with live(scripted_pair()) as server:
        answer = await server.openai.completions.create(
            model="scripted", prompt=["ab<think>", "b<think>"], seed=1, max_tokens=50
        )
        chunks = [
            chunk
            async for chunk in await server.openai.completions.create(
                model="scripted", prompt=["ab<think>", "b<think>"], seed=1, max_tokens=50, stream=True
            )
        ]
        short = await server.openai.completions.create(model="scripted", prompt="ab<think>", seed=1)
    Completion.model_validate(answer.model_dump(), strict=True)
    texts = [choice.text for choice in answer.choices]
    assert all(text.endswith("</think>dcd") for text in texts)
    assert answer.usage.prompt_tokens == 5
    for index, text in enumerate(texts):
        assert "".join(c.choices[0].text for c in chunks if c.choices[0].index == index) == text
    assert short.usage.completion_tokens == 14  # all of it: 16 is the limit if none is given
    own = await own_result(prompt="ab")  # the template puts <think> behind it
    assert texts[0] == own.text


async def test_n_outputs_differ_and_the_first_uses_the_seed():
    async with live(scripted_pair()) as server:
        answer = (await server.chat(n=5)).json()
        again = (await server.chat(n=5)).json()
        unseeded = [(await server.chat(seed=None)).json() for _ in range(6)]
    texts = [choice["message"]["reasoning"] for choice in answer["choices"]]
    own = await own_result()
    assert texts[0] == own.reasoning
    assert len(set(texts)) > 1
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3, 4]
    assert texts == [choice["message"]["reasoning"] for choice in again["choices"]]
    assert answer["usage"]["prompt_tokens"] == own.stats.prompt_tokens
    assert answer["usage"]["completion_tokens"] == 5 * own.stats.num_tokens  # all outputs are as long here
    assert len({reply["choices"][0]["message"]["reasoning"] for reply in unseeded}) > 1


@pytest.mark.parametrize("stop", ["c", ["\n\nb", "cd"], "a\n"])
async def test_stop_strings_cut_streams_and_whole_responses_alike(stop):
    own = await own_result()
    stops = [stop] if isinstance(stop, str) else stop
    cut = own.text[: min(own.text.index(stop) for stop in stops if stop in own.text)]
    reasoning, _, content = cut.partition("</think>")
    async with live(scripted_pair()) as server:
        whole = (await server.chat(stop=stop)).json()
        chunks = await events_of(await server.chat(stop=stop, stream=True))
    message = whole["choices"][0]["message"]
    assert message["content"] == content
    assert message["reasoning"] == reasoning.rstrip("\n")
    assert whole["choices"][0]["finish_reason"] == "stop"
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("content", "") for delta in deltas) == content
    assert "".join(delta.get("reasoning", "") for delta in deltas) == reasoning.rstrip("\n")
    assert whole["usage"]["completion_tokens"] <= own.stats.num_tokens


async def test_output_length_is_limited_under_both_names():
    async with live(scripted_pair(), max_model_len=12) as server:
        for name in ("max_tokens", "max_completion_tokens"):
            answer = (await server.chat(**{name: 4})).json()
            assert answer["usage"]["completion_tokens"] == 4
            assert answer["choices"][0]["finish_reason"] == "length"
        full = (await server.chat()).json()
        assert full["usage"]["total_tokens"] == 12
        long = await server.chat("abcd" * 3)
        assert (long.status_code, long.json()["error"]["code"]) == (400, "context_length_exceeded")
        both = await server.chat(max_tokens=4, max_completion_tokens=5)
        assert both.status_code == 400


async def test_speculation_can_be_set_per_request():
    async with live(scripted_pair(0.5)) as server:
        off = (await server.chat(speculation={"enabled": False})).json()["metrics"]
        never = (await server.chat(speculation={"rule": "never"})).json()["metrics"]
        strict = (await server.chat(speculation={"strictness": 1e9})).json()["metrics"]
        lax = (await server.chat(speculation={"strictness": 0.5, "segments": True})).json()["metrics"]
    assert off["speculative_decoding"]["num_draft_tokens"] == 0
    assert off["semantic"]["lossy"] is False
    assert off["semantic"]["segment_acceptance_rate"] is None
    for rejected in (never, strict):
        assert rejected["semantic"]["num_segments_accepted"] == 0
        assert rejected["speculative_decoding"]["num_draft_tokens"] > 0
    assert lax["semantic"]["num_segments_rejected"] == 0
    drafted = [segment for segment in lax["semantic"]["segments"] if segment["author"] == "draft"]
    assert len(drafted) == lax["semantic"]["num_segments_accepted"] > 0
    assert {segment["p_target"] for segment in drafted} == {0.5}


async def test_streams_report_segments_on_request():
    async with live(scripted_pair()) as server:
        chunks = await events_of(await server.chat(stream=True, speculation={"segments": True}))
        plain = await events_of(await server.chat(stream=True))
    reports = [chunk["semantic"] for chunk in chunks if "semantic" in chunk]
    decided = [event["decided"] for event in reports if "decided" in event]
    metrics = chunks[-1]["metrics"]["semantic"]
    assert {segment["accepted"] for segment in decided} == {True, False}
    assert len([event for event in reports if "drafted" in event]) == len(decided)
    assert len(decided) == metrics["num_segments_accepted"] + metrics["num_segments_rejected"]
    authors = {
        event["author"]: chunk["choices"][0]["delta"]
        for chunk in chunks
        if "author" in (event := chunk.get("semantic", {}))
    }
    assert set(authors) == {"draft", "target"}
    assert not any("semantic" in chunk for chunk in plain)
    rejected = next(segment["text"] for segment in decided if not segment["accepted"])
    assert rejected


async def test_concurrent_requests_get_their_own_outputs():
    alone = {seed: await own_result(seed) for seed in range(40)}
    async with live(scripted_pair(), max_concurrent_requests=7, max_queued_requests=100) as server:
        answers = await asyncio.gather(*(server.chat(seed=seed, stream=seed % 2 == 0) for seed in alone))
        for (_, own), answer in zip(alone.items(), answers, strict=True):
            if answer.headers["content-type"].startswith("text/event-stream"):
                deltas = [chunk["choices"][0]["delta"] for chunk in await events_of(answer)]
                assert "".join(delta.get("reasoning", "") for delta in deltas) == own.reasoning
            else:
                assert answer.json()["choices"][0]["message"]["reasoning"] == own.reasoning
    assert len({own.reasoning for own in alone.values()}) > 5
