"""Scripted pairs, fast or slow, a live server in this process, and helpers to query it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

import httpx
from openai import AsyncOpenAI
from prometheus_client.parser import text_string_to_metric_families

from semanticspec.config import with_options
from semanticspec.decoding.generate import generate_async
from semanticspec.decoding.pair import Model, Pair
from semanticspec.engines.scripted import NextProbabilities, ScriptedEngine
from semanticspec.records import Result
from semanticspec.server.run import GracefulServer, make_server
from semanticspec.server.service import Service
from semanticspec.server.settings import ServerSettings
from tests.support.vocabularies import make_vocabulary

USER = [{"role": "user", "content": "a"}]
CONFIG = with_options(ServerSettings(strictness=1.0, optimizations="none").decoding(), seed=1)
"""What `live` serves, with a seed."""
A, B, C, D, NEWLINE, BLANK, EOS, THINK, THINK_END = range(9)
TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<think>{% endif %}"
)


def only(**weights: float) -> list[float]:
    names = {"a": A, "b": B, "c": C, "d": D, "blank": BLANK, "eos": EOS, "end": THINK_END}
    total = sum(weights.values())
    row = [0.0] * 9
    for name, weight in weights.items():
        row[names[name]] = weight / total
    return row


def thinks_then_answers(a: float, b: float) -> NextProbabilities:
    """Generates three segments of two letters each, `</think>`, then "dcd"."""

    def says(ids: tuple[int, ...]) -> list[float]:
        start = ids.index(THINK) if THINK in ids else 0
        output = ids[start + 1 :]
        if THINK_END in output:
            said = len(output) - output.index(THINK_END) - 1
            return only(eos=1) if said == 3 else only(c=1) if said == 1 else only(d=1)
        if output.count(BLANK) == 3:
            return only(end=1)
        since = next((n for n, i in enumerate(reversed(output)) if i == BLANK), len(output))
        return only(a=a, b=b) if since < 2 else only(blank=1)

    return says


def endless(_: tuple[int, ...]) -> list[float]:
    return only(a=1, b=1)


class SlowEngine(ScriptedEngine):
    """Sleeps for every token.

    Attributes:
        running_calls: number of calls in progress.
    """

    running_calls = 0
    token_s = 0.02

    async def generate(self, context_ids, *, max_tokens, **options):
        self.running_calls += 1
        try:
            await asyncio.sleep(self.token_s * max_tokens)
            return await super().generate(context_ids, max_tokens=max_tokens, **options)
        finally:
            self.running_calls -= 1

    async def stream(self, context_ids, *, max_tokens, **options):
        self.running_calls += 1
        try:
            async for chunk in super().stream(context_ids, max_tokens=max_tokens, **options):
                await asyncio.sleep(self.token_s)
                yield chunk
        finally:
            self.running_calls -= 1


class FixedProbe:
    def __init__(self, probability: float) -> None:
        self.probability = probability

    def estimate(self, reading) -> float:  # noqa: ARG002
        return self.probability


def scripted_pair(p_target: float = 0.5, **engine) -> Pair:
    """Returns a pair whose models prefer different letters; about half of the drafted segments are accepted."""
    vocabulary = make_vocabulary(template=TEMPLATE)
    return Pair(
        Model(ScriptedEngine(thinks_then_answers(2, 1), 9, **engine), vocabulary),
        Model(ScriptedEngine(thinks_then_answers(1, 2), 9, **engine), vocabulary),
        FixedProbe(p_target),
        FixedProbe(1.0),
        "scripted",
    )


def slow_pair() -> Pair:
    """Returns a pair that generates until its context is full, which takes eight seconds."""
    vocabulary = make_vocabulary(template=TEMPLATE)
    return Pair(
        Model(SlowEngine(endless, 9, 400), vocabulary),
        Model(SlowEngine(endless, 9, 400), vocabulary),
        FixedProbe(0.5),
        FixedProbe(1.0),
        "slow",
    )


@dataclass
class Live:
    """A running server, and clients for it."""

    server: GracefulServer
    service: Service
    url: str
    http: httpx.AsyncClient
    openai: AsyncOpenAI

    async def chat(self, content: str = "a", **fields) -> httpx.Response:
        body = {"messages": [{"role": "user", "content": content}], "seed": 1} | fields
        return await self.http.post("/v1/chat/completions", json=body)

    async def metrics(self) -> dict[str, float]:
        """Returns the samples of `/metrics` by name and label values, such as `name|stop`."""
        text = (await self.http.get("/metrics")).text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {
            "|".join([s.name, *(v for k, v in sorted(s.labels.items()) if k != "model_name")]): s.value
            for s in samples
        }


@asynccontextmanager
async def live(pair: Pair, **settings) -> AsyncIterator[Live]:
    """Serves a pair on a free local port, under uvicorn as `semanticspec serve` does."""
    checked = ServerSettings(
        **{"port": 0, "rule": "semantic", "optimizations": "none", "strictness": 1.0} | settings
    )
    server = make_server(pair, checked)
    task = asyncio.create_task(server.serve())
    while not server.started:
        assert not task.done(), "the server did not start"
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    headers = {"Authorization": f"Bearer {checked.api_key}"} if checked.api_key else {}
    try:
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as http:
            client = AsyncOpenAI(base_url=f"{url}/v1", api_key=checked.api_key or "none", max_retries=0)
            async with client:
                yield Live(server, server.service, url, http, client)
    finally:
        server.should_exit = True
        await task


async def own_result(seed: int = 1, prompt: str = "a", **pair) -> Result:
    """Decodes without a server, with the configuration that `live` serves."""
    return await generate_async(scripted_pair(**pair), prompt, replace(CONFIG, seed=seed))


async def events_of(response: httpx.Response) -> list[dict]:
    """Returns the chunks of a stream, after checking its format and end marker."""
    lines = [line async for line in response.aiter_lines() if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Waits for a condition; raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
