"""What tests of the server share: scripted pairs, quick or slow, and a live server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
from openai import AsyncOpenAI

from semanticspec.decoding.pair import Model, Pair
from semanticspec.engines.scripted import NextProbabilities, ScriptedEngine
from semanticspec.server.run import GracefulServer, make_server
from semanticspec.server.service import Service
from semanticspec.server.settings import ServerSettings
from tests.support.vocabularies import make_vocabulary

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
    """Three segments of two letters each, the end of thinking, then "dcd"."""

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
    """Takes its time for every token, and counts the calls that are at work.

    Attributes:
        at_work: how many calls somebody waits for.
    """

    at_work = 0
    token_s = 0.02

    async def generate(self, context_ids, *, max_tokens, **options):
        self.at_work += 1
        try:
            await asyncio.sleep(self.token_s * max_tokens)
            return await super().generate(context_ids, max_tokens=max_tokens, **options)
        finally:
            self.at_work -= 1

    async def stream(self, context_ids, *, max_tokens, **options):
        self.at_work += 1
        try:
            async for chunk in super().stream(context_ids, max_tokens=max_tokens, **options):
                await asyncio.sleep(self.token_s)
                yield chunk
        finally:
            self.at_work -= 1


class FixedProbe:
    def __init__(self, probability: float) -> None:
        self.probability = probability

    def estimate(self, reading) -> float:  # noqa: ARG002
        return self.probability


def scripted_pair(p_target: float = 0.5, **engine) -> Pair:
    """The draft likes the other letter; about half of its segments are kept."""
    vocabulary = make_vocabulary(template=TEMPLATE)
    return Pair(
        Model(ScriptedEngine(thinks_then_answers(2, 1), 9, **engine), vocabulary),
        Model(ScriptedEngine(thinks_then_answers(1, 2), 9, **engine), vocabulary),
        FixedProbe(p_target),
        FixedProbe(1.0),
        "scripted",
    )


def slow_pair() -> Pair:
    """Writes up to its context's end, which takes eight seconds."""
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
    """A server that runs, and ways to ask it."""

    server: GracefulServer
    service: Service
    url: str
    http: httpx.AsyncClient
    openai: AsyncOpenAI

    async def chat(self, content: str = "a", **fields) -> httpx.Response:
        body = {"messages": [{"role": "user", "content": content}], "seed": 1} | fields
        return await self.http.post("/v1/chat/completions", json=body)


@asynccontextmanager
async def live(pair: Pair, **settings) -> AsyncIterator[Live]:
    """Serves a pair on a free port of this machine, under uvicorn as `semanticspec serve` does."""
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
                yield Live(server, server._service, url, http, client)
    finally:
        server.should_exit = True
        await task
