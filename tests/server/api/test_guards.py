"""What is checked before a request reaches an endpoint: API key, host name, body size, origin."""

from __future__ import annotations

import httpx
import openai
import pytest

from tests.support.serving import live, scripted_pair


async def test_every_path_but_the_public_ones_needs_the_key():
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


async def test_without_a_key_only_local_host_names_are_accepted():
    async with live(scripted_pair()) as server:
        for name in ("localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST:1"):
            assert (await server.http.get("/v1/models", headers={"Host": name})).status_code == 200
        for name in ("page.example", "localhost.page.example", "127.0.0.1.page.example:8000", ""):
            refused = await server.http.get("/v1/models", headers={"Host": name})
            assert refused.json()["error"]["code"] == "foreign_host"
    async with live(scripted_pair(), api_key="secret") as server:
        assert (await server.http.get("/v1/models", headers={"Host": "page.example"})).status_code == 200


async def test_long_bodies_are_refused_with_and_without_a_declared_length():
    async def in_pieces():
        for _ in range(40):
            yield b" " * 1000

    async with live(scripted_pair(), max_body_bytes=10_000) as server:
        declared = await server.chat("a" * 20_000)
        undeclared = await server.http.post(
            "/v1/chat/completions", content=in_pieces(), headers={"Content-Type": "application/json"}
        )
        assert (declared.status_code, undeclared.status_code) == (413, 413)
        assert "10000 bytes" in declared.json()["error"]["message"]
        assert (await server.chat()).status_code == 200


async def test_other_origins_need_to_be_allowed():
    origin = {"Origin": "https://page.example"}
    async with live(scripted_pair()) as server:
        closed = await server.http.get("/v1/models", headers=origin)
    async with live(scripted_pair(), allowed_origins=["https://page.example"]) as server:
        opened = await server.http.get("/v1/models", headers=origin)
    assert "access-control-allow-origin" not in closed.headers
    assert opened.headers["access-control-allow-origin"] == "https://page.example"
