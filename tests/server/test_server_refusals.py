"""What the server does not take: fields, values, keys, names, bodies; each with a status, a field and a reason."""

from __future__ import annotations

import gc
import logging

import httpx
import openai
import pytest

from tests.support.serving import live, scripted_pair

USER = [{"role": "user", "content": "a"}]


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


async def test_fields_at_the_value_where_they_do_nothing_pass():
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
        ("{", "no JSON"),
        ("[]", "no JSON object"),
        ('{"messages": []}', "messages"),
        ('{"messages": [{"role": "user", "content": " "}]}', "empty"),
        ('{"messages": [{"role": "user", "content": "\\ud800"}]}', "surrogate"),
        ('{"messages": [{"role": "user", "content": "a"}], "\\ud800": 1}', ""),
        ('{"messages": [{"role": "user", "content": "a"}], "temperature": NaN}', "temperature"),
        ('{"messages": [{"role": "user", "content": "a"}], "temperature": -1}', "temperature"),
        ('{"messages": [{"role": "user", "content": "a"}], "top_p": 0}', "top_p"),
        ('{"messages": [{"role": "user", "content": "a"}], "seed": -1}', "seed"),
        ('{"messages": [{"role": "user", "content": "a"}], "n": 0}', "n"),
        ('{"messages": [{"role": "user", "content": "a"}], "n": 1000000000}', "ask for fewer"),
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
async def test_bad_requests_are_400_and_the_server_goes_on(body, message, caplog):
    gc.collect()  # tasks that earlier tests left behind report when they are collected
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


async def test_other_paths_models_and_methods_are_told_in_openais_form():
    async with live(scripted_pair(), served_model_name="mine") as server:
        assert [model.id async for model in server.openai.models.list()] == ["mine"]
        with pytest.raises(openai.NotFoundError, match="'gpt-4'"):
            await server.openai.chat.completions.create(model="gpt-4", messages=USER)
        assert (await server.http.get("/nowhere")).json()["error"]["type"] == "not_found_error"
        assert (await server.http.delete("/v1/models")).status_code == 405
        assert (await server.http.get("/health")).status_code == 200
        assert set((await server.http.get("/version")).json()) == {"version"}
        simple = await server.http.post("/v1/chat/completions", content='{"messages": [{}]}')
        assert simple.status_code == 400  # no JSON type: what a foreign web page could send without asking


async def test_the_key_is_asked_for_everywhere_but_where_it_is_entered():
    async with live(scripted_pair(), api_key="secret") as server:
        assert (await server.chat()).status_code == 200
        async with httpx.AsyncClient(base_url=server.url) as stranger:
            for wrong in (
                {},
                {"Authorization": "Bearer secre"},
                {"Authorization": "Basic secret"},
            ):
                for path in ("/v1/models", "/metrics", "/openapi.json", "/v1//models"):
                    refused = await stranger.get(path, headers=wrong)
                    assert refused.status_code == 401
                    assert refused.json()["error"]["code"] == "invalid_api_key"
            for path in ("/", "/health", "/version"):
                assert (await stranger.get(path)).status_code == 200
        with pytest.raises(openai.AuthenticationError):
            await server.openai.with_options(api_key="other").models.list()


async def test_without_a_key_only_local_names_are_answered():
    async with live(scripted_pair()) as server:
        for name in ("localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST:1"):
            assert (await server.http.get("/v1/models", headers={"Host": name})).status_code == 200
        for name in ("page.example", "localhost.page.example", "127.0.0.1.page.example:8000", ""):
            foreign = await server.http.get("/v1/models", headers={"Host": name})
            assert foreign.json()["error"]["code"] == "foreign_host"
    async with live(scripted_pair(), api_key="secret") as server:
        assert (await server.http.get("/v1/models", headers={"Host": "page.example"})).status_code == 200


async def test_long_bodies_are_refused_told_or_not():
    async def in_pieces():
        for _ in range(40):
            yield b" " * 1000

    async with live(scripted_pair(), max_body_bytes=10_000) as server:
        told = await server.chat("a" * 20_000)
        untold = await server.http.post(
            "/v1/chat/completions", content=in_pieces(), headers={"Content-Type": "application/json"}
        )
        assert (told.status_code, untold.status_code) == (413, 413)
        assert "10000 bytes" in told.json()["error"]["message"]
        assert (await server.chat()).status_code == 200


async def test_foreign_pages_may_ask_only_where_allowed():
    origin = {"Origin": "https://page.example"}
    async with live(scripted_pair()) as server:
        closed = await server.http.get("/v1/models", headers=origin)
    async with live(scripted_pair(), allowed_origins=["https://page.example"]) as server:
        opened = await server.http.get("/v1/models", headers=origin)
    assert "access-control-allow-origin" not in closed.headers
    assert opened.headers["access-control-allow-origin"] == "https://page.example"
