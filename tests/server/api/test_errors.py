"""Error responses: status, field and message of every request that is refused or fails."""

from __future__ import annotations

import gc
import json
import logging

import openai
import pytest

from semanticspec.errors import EngineError
from tests.support.serving import USER, events_of, live, scripted_pair


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "function"}]),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("response_format", {"type": "json_object"}),
        ("frequency_penalty", 0.5),
        ("presence_penalty", 0.5),
        ("logit_bias", {"1": 2}),
        ("best_of", 2),
        ("echo", True),
        ("top_k", 5),
        ("whatever", None),
        ("speculation.optimizations", "token-speculation"),
        ("messages.0.tool_calls", [{}]),
    ],
)
async def test_unsupported_fields_are_refused_by_name(field, value):
    body: dict = {"messages": [{"role": "user", "content": "a"}], "speculation": {}}
    place = body
    *path, last = [int(part) if part.isdecimal() else part for part in field.split(".")]
    for part in path:
        place = place[part]
    place[last] = value
    async with live(scripted_pair()) as server:
        refused = await server.http.post("/v1/chat/completions", json=body)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == field
    assert field in refused.json()["error"]["message"]


async def test_unsupported_fields_without_effect_are_accepted():
    async with live(scripted_pair()) as server:
        answer = await server.chat(
            frequency_penalty=0, logprobs=False, tools=None, response_format={"type": "text"}, user="me"
        )
        history = await server.openai.chat.completions.create(
            model="scripted",
            messages=[*USER, answer.json()["choices"][0]["message"], {"role": "user", "content": "b"}],
        )
    assert answer.status_code == 200
    assert history.usage.prompt_tokens == 1 + len(answer.json()["choices"][0]["message"]["content"]) + 1 + 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a JSON object"),
        ('{"messages": []}', "messages"),
        ('{"messages": [{"role": "user", "content": " "}]}', "empty"),
        ('{"messages": [{"role": "user", "content": "\\ud800"}]}', "surrogate"),
        ('{"messages": [{"role": "user", "content": "a"}], "\\ud800": 1}', ""),
        ('{"messages": [{"role": "user", "content": "a"}], "temperature": NaN}', "temperature"),
        ('{"messages": [{"role": "user", "content": "a"}], "temperature": -1}', "temperature"),
        ('{"messages": [{"role": "user", "content": "a"}], "top_p": 0}', "top_p"),
        ('{"messages": [{"role": "user", "content": "a"}], "seed": -1}', "seed"),
        ('{"messages": [{"role": "user", "content": "a"}], "n": 0}', "n"),
        ('{"messages": [{"role": "user", "content": "a"}], "n": 1000000000}', "lower n"),
        ('{"messages": [{"role": "user", "content": "a"}], "stop": [""]}', "stop"),
        ('{"messages": [{"role": "tool", "content": "a"}]}', "role"),
        ('{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}', "content"),
        ('{"messages": [{"role": "user", "content": "a"}], "speculation": {"rule": "best"}}', "rule"),
        (
            '{"messages": [{"role": "user", "content": "a"}], "speculation": {"rule": "never", "strictness": 2}}',
            "strictness",
        ),
        ('{"messages": [{"role": "user", "content": "a"}], "stream_options": {}}', "stream"),
        ("[" * 100_000, ""),
        ('{"seed": ' + "9" * 5000 + "}", ""),
    ],
)
async def test_bad_requests_get_400_and_the_server_keeps_running(body, message, caplog):
    gc.collect()  # pending tasks of earlier tests log when they are collected
    caplog.clear()
    caplog.set_level(logging.ERROR)
    async with live(scripted_pair()) as server:
        headers = {"Content-Type": "application/json"}
        refused = await server.http.post("/v1/chat/completions", content=body, headers=headers)
        good = await server.chat()
    assert refused.status_code == 400, refused.text
    assert message in refused.json()["error"]["message"]
    assert good.status_code == 200
    assert caplog.records == []


async def test_unknown_paths_models_and_methods_get_openai_errors():
    async with live(scripted_pair(), served_model_name="mine") as server:
        assert [model.id async for model in server.openai.models.list()] == ["mine"]
        with pytest.raises(openai.NotFoundError, match="'gpt-4'"):
            await server.openai.chat.completions.create(model="gpt-4", messages=USER)
        assert (await server.http.get("/nowhere")).json()["error"]["type"] == "not_found_error"
        assert (await server.http.delete("/v1/models")).status_code == 405
        assert (await server.http.get("/health")).status_code == 200
        assert set((await server.http.get("/version")).json()) == {"version"}
        simple = await server.http.post("/v1/chat/completions", content='{"messages": [{}]}')
        assert (
            simple.status_code == 400
        )  # without a JSON content type, which other origins cannot set without permission


@pytest.mark.parametrize(
    ("error", "code"),
    [(RuntimeError("/secret/path"), "internal_error"), (EngineError("/secret/path"), "engine_error")],
)
async def test_internal_errors_are_hidden_from_clients(error, code, caplog):
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
        assert server.service.queue.running == 0
        assert (await server.chat(speculation={"enabled": False})).status_code == 200
