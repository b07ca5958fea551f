"""The server as its clients meet it: the official openai client, plain HTTP, and people who go away."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from importlib.resources import files

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.completion import Completion
from prometheus_client.parser import text_string_to_metric_families

from semanticspec.config import with_options
from semanticspec.decoding.generate import generate_async
from semanticspec.demo.grammar import read_problem
from semanticspec.errors import ConfigError, EngineError
from semanticspec.server.service import Service
from semanticspec.server.settings import ServerSettings, read_settings
from tests.support.serving import live, scripted_pair, slow_pair

USER = [{"role": "user", "content": "a"}]
CONFIG = with_options(ServerSettings(strictness=1.0).decoding(), seed=1)


async def own_result(seed: int = 1, prompt="a", **pair):
    return await generate_async(scripted_pair(**pair), prompt, replace(CONFIG, seed=seed))


async def events_of(response: httpx.Response) -> list[dict]:
    lines = [line async for line in response.aiter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


async def until(condition, seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def test_openai_client_gets_what_the_loop_wrote():
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


async def test_openai_client_streams_the_same():
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


async def test_completions_go_on_with_the_text_as_it_stands():
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


async def test_n_outputs_differ_and_the_first_is_that_of_the_seed():
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
async def test_stop_strings_end_streams_and_answers_alike(stop):
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


async def test_length_limits_and_their_two_names():
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


async def test_speculation_can_be_changed_for_a_request():
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


async def test_a_stream_tells_segments_on_request():
    async with live(scripted_pair()) as server:
        chunks = await events_of(await server.chat(stream=True, speculation={"segments": True}))
        plain = await events_of(await server.chat(stream=True))
    told = [chunk["semantic"] for chunk in chunks if "semantic" in chunk]
    decided = [event["decided"] for event in told if "decided" in event]
    metrics = chunks[-1]["metrics"]["semantic"]
    assert {segment["accepted"] for segment in decided} == {True, False}
    assert len([event for event in told if "drafted" in event]) == len(decided)
    assert len(decided) == metrics["num_segments_accepted"] + metrics["num_segments_rejected"]
    authors = {
        event["author"]: chunk["choices"][0]["delta"]
        for chunk in chunks
        if "author" in (event := chunk.get("semantic", {}))
    }
    assert set(authors) == {"draft", "target"}
    assert not any("semantic" in chunk for chunk in plain)
    rejected = next(segment["text"] for segment in decided if not segment["accepted"])
    assert rejected  # told, though it is no output


async def test_a_full_queue_answers_429_at_once_and_takes_requests_again():
    pair = slow_pair()
    async with live(pair, max_concurrent_requests=2, max_queued_requests=1) as server:
        waiting = [asyncio.create_task(server.chat(max_tokens=20)) for _ in range(3)]
        await until(lambda: (server.service.admission.running, server.service.admission.waiting) == (2, 1))
        async with asyncio.timeout(0.5):
            refused = await server.chat(max_tokens=1)
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert (await server.chat(n=4)).status_code == 400
        assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200] * 3
        assert (await server.chat(max_tokens=1)).status_code == 200
        figures = await metrics(server)
        assert figures["semanticspec:requests_refused_total"] == 1
        assert server.service.admission.running == server.service.admission.waiting == 0


async def metrics(server) -> dict[str, float]:
    text = (await server.http.get("/metrics")).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {
        "|".join([s.name, *(v for k, v in sorted(s.labels.items()) if k != "model_name")]): s.value
        for s in samples
    }


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("enabled", [True, False])
async def test_a_client_that_goes_away_frees_its_work(stream, enabled):
    pair = slow_pair()
    engines = (pair.target.engine, pair.draft.engine)
    async with live(pair, max_concurrent_requests=1) as server:
        body = {"messages": USER, "n": 2, "stream": stream, "speculation": {"enabled": enabled}}
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as leaving:
            came: list[str] = []
            asking = asyncio.create_task(_read_for_ever(leaving, body, came))
            await until(lambda: sum(engine.at_work for engine in engines) == 1)
            await until(lambda: server.service.admission.waiting == 1)  # the second output
            if stream and not enabled:
                await until(lambda: any('"reasoning"' in line for line in came))
            asking.cancel()
            await asyncio.wait([asking])
        await until(lambda: sum(engine.at_work for engine in engines) == 0, seconds=1)
        await until(
            lambda: server.service.admission.running + server.service.admission.waiting == 0, seconds=1
        )
        async with asyncio.timeout(2):
            assert (await server.chat(max_tokens=1)).status_code == 200
        assert (await metrics(server))["semanticspec:request_success_total|abort"] == 2


async def _read_for_ever(client: httpx.AsyncClient, body: dict, came: list[str]) -> None:
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        async for line in response.aiter_lines():
            came.append(line)


async def test_a_request_that_takes_too_long_is_ended():
    pair = slow_pair()
    async with live(pair, request_timeout_s=1.0) as server:
        late = await server.chat()
        assert (late.status_code, late.json()["error"]["code"]) == (504, "timeout")
        chunks = await events_of(await server.chat(stream=True, speculation={"enabled": False}))
        assert chunks[-1]["error"]["code"] == "timeout"
        assert any("reasoning" in chunk["choices"][0]["delta"] for chunk in chunks[:-1])
        stream = await server.openai.chat.completions.create(model="slow", messages=USER, stream=True)
        with pytest.raises(openai.APIError, match="longer than"):
            _ = [chunk async for chunk in stream]
        await until(lambda: pair.target.engine.at_work + pair.draft.engine.at_work == 0, seconds=1)


@pytest.mark.parametrize(
    ("error", "code"),
    [(RuntimeError("/secret/path"), "internal_error"), (EngineError("/secret/path"), "engine_error")],
)
async def test_what_fails_inside_is_not_shown_to_clients(error, code, caplog):
    pair = scripted_pair()

    def broken(_):
        raise error

    pair.target_probe.estimate = broken
    async with live(pair) as server:
        answer = await server.chat()
        chunks = await events_of(await server.chat(stream=True))
        assert answer.status_code == 500
        for shown in (answer.json()["error"], chunks[-1]["error"]):
            assert shown["code"] == code
            assert "secret" not in json.dumps(shown)
        assert caplog.text.count("Error: /secret/path") == 2
        assert server.service.admission.running == 0
        assert (await server.chat(speculation={"enabled": False})).status_code == 200


async def test_requests_side_by_side_each_get_their_own_answer():
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


async def test_metrics_add_up():
    async with live(scripted_pair()) as server:
        answers = [(await server.chat(seed=seed)).json() for seed in range(5)]
        figures = await metrics(server)
    speculative = [answer["metrics"]["speculative_decoding"] for answer in answers]
    prefix = "semanticspec:"
    assert figures[f"{prefix}request_success_total|stop"] == 5
    for name, field in (
        ("num_drafts", "num_spec_steps"),
        ("num_draft_tokens", "num_draft_tokens"),
        ("num_accepted_tokens", "num_accepted_draft_tokens"),
    ):
        assert figures[f"{prefix}spec_decode_{name}_total"] == sum(s[field] for s in speculative) > 0
    for name in ("prompt", "generation"):
        usage = "prompt_tokens" if name == "prompt" else "completion_tokens"
        assert figures[f"{prefix}{name}_tokens_total"] == sum(answer["usage"][usage] for answer in answers)
    semantic = [answer["metrics"]["semantic"] for answer in answers]
    for outcome in ("accepted", "rejected"):
        counted = figures[f"{prefix}segments_total|draft|{outcome}|semantic"]
        assert counted == sum(s[f"num_segments_{outcome}"] for s in semantic) > 0
    drafts = sum(s["num_spec_steps"] for s in speculative)
    assert figures[f"{prefix}semantic_probability_bucket|0.5|target"] == drafts
    assert figures[f"{prefix}semantic_probability_bucket|0.9|draft"] == 0
    assert figures[f"{prefix}time_to_first_token_seconds_count"] == 5
    assert figures[f"{prefix}e2e_request_latency_seconds_count"] == 5
    draft_s = figures[f"{prefix}phase_seconds_total|draft"]
    assert draft_s == pytest.approx(sum(s["seconds"]["draft"] for s in semantic), abs=1e-4)
    assert figures[f"{prefix}num_requests_running"] == figures[f"{prefix}num_requests_waiting"] == 0


async def test_shutting_down_lets_requests_finish_and_takes_no_more():
    async with live(slow_pair()) as server:
        running = asyncio.create_task(server.chat(max_tokens=20))
        await until(lambda: server.service.admission.running == 1)
        server.service.draining = True
        assert (await server.chat()).json()["error"]["code"] == "shutting_down"
        assert (await server.http.get("/health")).status_code == 503
        server.server.should_exit = True
        assert (await running).json()["usage"]["completion_tokens"] == 20


async def test_shutting_down_ends_streams_that_take_too_long_with_an_error():
    pair = slow_pair()
    async with live(pair, shutdown_timeout_s=0.1) as server:
        reading = asyncio.create_task(server.chat(stream=True))
        await until(lambda: server.service.admission.running == 1)
        server.server.should_exit = True
        chunks = await events_of(await reading)
    assert chunks[-1]["error"]["code"] == "shutting_down"
    assert pair.target.engine.at_work + pair.draft.engine.at_work == 0


async def test_the_page_loads_nothing_from_elsewhere():
    async with live(scripted_pair()) as server:
        page = await server.http.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.findall(r"(?:https?:)?//\w+[\w.]*\.\w+", page.text)
    for tag in ("script", "style"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert not re.findall(r"<[^>]*\s(?:style|on\w+)=", page.text)  # the policy would not let them work


def test_the_pages_examples_are_problems_the_bundled_pair_knows():
    html = files("semanticspec.server").joinpath("page.html").read_text(encoding="utf-8")
    block = html.partition("BUNDLED_EXAMPLES = [")[2].partition("];")[0]
    examples = re.findall(r'"(.+)"', block)
    assert len(examples) == 3
    assert all(read_problem(example) is not None for example in examples)


@pytest.mark.parametrize(
    ("settings", "on"),
    [
        ({}, True),
        ({"optimizations": "none"}, False),
        ({"preset": "paper"}, False),
        ({"optimizations": "partial-acceptance,token-speculation"}, True),
    ],
    ids=str,
)
def test_optimizations_are_on_unless_the_settings_say_otherwise(settings, on):
    config = Service(scripted_pair(), ServerSettings(**settings)).config
    assert (config.partial_acceptance, config.num_speculative_tokens > 0) == (on, on)


def test_importing_the_package_and_its_command_line_loads_no_server():
    code = (
        "import sys, semanticspec.commands.main; "
        "print([m for m in sys.modules if m in ('fastapi', 'uvicorn', 'torch')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done


def test_the_command_line_wins_over_the_file(tmp_path):
    file = tmp_path / "serve.yaml"
    file.write_text("port: 1234\nmax-model-len: 99\nallowed-origins: [https://page.example]\n")
    settings = read_settings(file, {"port": 4321, "host": None, "allowed_origins": []})
    assert (settings.port, settings.max_model_len, settings.host) == (4321, 99, "127.0.0.1")
    assert settings.allowed_origins == ("https://page.example",)
    with pytest.raises(ConfigError, match="api_key") as refused:
        read_settings(None, {"api_key": "two words"})
    assert "two words" not in str(refused.value)
