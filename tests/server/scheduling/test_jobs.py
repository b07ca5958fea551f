"""Jobs that are stopped: by the client's disconnect, or by the time limit."""

from __future__ import annotations

import asyncio

import httpx
import openai
import pytest

from tests.support.serving import USER, events_of, live, slow_pair, until


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("enabled", [True, False])
async def test_disconnect_stops_decoding_and_frees_the_slots(stream, enabled):
    pair = slow_pair()
    engines = (pair.target.engine, pair.draft.engine)
    async with live(pair, max_concurrent_requests=1) as server:
        body = {"messages": USER, "n": 2, "stream": stream, "speculation": {"enabled": enabled}}
        async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
            lines: list[str] = []
            reading = asyncio.create_task(_read_forever(client, body, lines))
            await until(lambda: sum(engine.running_calls for engine in engines) == 1)
            await until(lambda: server.service.queue.waiting == 1)  # the second output
            if stream and not enabled:
                await until(lambda: any('"reasoning"' in line for line in lines))
            reading.cancel()
            await asyncio.wait([reading])
        await until(lambda: sum(engine.running_calls for engine in engines) == 0, seconds=1)
        await until(lambda: server.service.queue.running + server.service.queue.waiting == 0, seconds=1)
        assert (await server.chat(max_tokens=1)).status_code == 200
        assert (await server.metrics())["semanticspec:request_success_total|abort"] == 2


async def _read_forever(client: httpx.AsyncClient, body: dict, lines: list[str]) -> None:
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        async for line in response.aiter_lines():
            lines.append(line)


async def test_requests_over_the_time_limit_are_stopped():
    pair = slow_pair()
    async with live(pair, request_timeout_s=1.0) as server:
        late = await server.chat()
        assert (late.status_code, late.json()["error"]["code"]) == (504, "timeout")
        chunks = await events_of(await server.chat(stream=True, speculation={"enabled": False}))
        assert chunks[-1]["error"]["code"] == "timeout"
        assert any("reasoning" in chunk["choices"][0]["delta"] for chunk in chunks[:-1])
        stream = await server.openai.chat.completions.create(model="slow", messages=USER, stream=True)
        with pytest.raises(openai.APIError, match="limit of 1 s"):
            _ = [chunk async for chunk in stream]
        await until(
            lambda: pair.target.engine.running_calls + pair.draft.engine.running_calls == 0, seconds=1
        )
