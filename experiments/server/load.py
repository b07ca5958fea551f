"""Load test: sends problems of the bundled pair concurrently and checks each answer against its own problem.

    python experiments/server/load.py http://127.0.0.1:8000 --requests 200 --concurrency 16

Prints one JSON object: answered and correct requests, throughput, latencies. `--leaving 0.3` makes that share of the
clients disconnect in mid-stream. `--seconds 600` sends requests for that long instead of a number of them; with the
server's `--pid`, its resident memory is sampled every ten seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from semanticspec.demo.grammar import Problem, answer_of, problems, read_step


@dataclass
class Tally:
    """Results of all requests.

    Attributes:
        mixed_up: answers that name people or things of another problem.
    """

    requests: int = 0
    answered: int = 0
    correct: int = 0
    mixed_up: int = 0
    disconnected: int = 0
    failed: list[str] = field(default_factory=list)
    tokens: int = 0
    latencies_s: list[float] = field(default_factory=list)
    first_text_s: list[float] = field(default_factory=list)


async def load(url: str, requests: int, concurrency: int, leaving: float = 0.0) -> dict[str, Any]:
    """Sends a number of problems; returns the figures."""
    return await load_with(url, problems("test", requests), concurrency, leaving)


async def load_for(
    url: str, seconds: float, concurrency: int, leaving: float, pid: int | None
) -> dict[str, Any]:
    """Sends problems for a time; returns the figures."""
    ends = time.perf_counter() + seconds
    pool, rng = problems("test", 1000), random.Random(1)

    def until_end() -> Iterator[Problem]:
        while time.perf_counter() < ends:
            yield rng.choice(pool)

    memory_mib: list[int] = []
    watching = asyncio.create_task(watch_memory(pid, memory_mib)) if pid is not None else None
    found = await load_with(url, until_end(), concurrency, leaving)
    if watching is not None:
        watching.cancel()
        found["memory_mib"] = memory_mib
    return found


async def load_with(url: str, to_send: Iterable[Problem], concurrency: int, leaving: float) -> dict[str, Any]:
    tally, rng = Tally(), random.Random(0)
    waiting = enumerate(to_send)
    limits = httpx.Limits(max_connections=concurrency)
    began = time.perf_counter()

    async def client_of(client: httpx.AsyncClient) -> None:
        for seed, problem in waiting:
            tally.requests += 1
            await ask(client, tally, problem, seed, rng.random() < leaving)

    async with httpx.AsyncClient(base_url=url, timeout=600, limits=limits) as client:
        await asyncio.gather(*(client_of(client) for _ in range(concurrency)))
    return figures(tally, time.perf_counter() - began)


async def watch_memory(pid: int, memory_mib: list[int]) -> None:
    """Samples the resident memory of a process every ten seconds."""
    while True:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        memory_mib.append(int(status.split("VmRSS:")[1].split()[0]) // 1024)
        await asyncio.sleep(10)


async def ask(client: httpx.AsyncClient, tally: Tally, problem: Problem, seed: int, leaves: bool) -> None:
    """Sends one problem and reads the stream."""
    body = {
        "messages": [{"role": "user", "content": problem.text}],
        "seed": seed,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    began, reasoning, content = time.perf_counter(), "", ""
    first: float | None = None
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        if response.status_code != 200:
            tally.failed.append(f"{response.status_code}")
            return
        async for line in response.aiter_lines():
            if line == "data: [DONE]":
                break
            if not line.startswith("data: "):
                continue
            chunk = json.loads(line.removeprefix("data: "))
            if "error" in chunk:
                tally.failed.append(chunk["error"]["message"])
                return
            for choice in chunk["choices"]:
                reasoning += choice["delta"].get("reasoning", "")
                content += choice["delta"].get("content", "")
            if first is None and reasoning:
                first = time.perf_counter() - began
                if leaves:
                    tally.disconnected += 1
                    return
            if chunk["usage"]:
                tally.tokens += chunk["usage"]["completion_tokens"]
    tally.latencies_s.append(time.perf_counter() - began)
    tally.first_text_s.append(first or 0.0)
    tally.answered += 1
    tally.correct += answer_of(content) == problem.answer
    tally.mixed_up += not is_about(problem, reasoning)


def is_about(problem: Problem, reasoning: str) -> bool:
    """Returns whether the first step names a person and a thing of the problem."""
    step = read_step(reasoning.split("\n\n")[0])
    return step is None or (step.who in problem.text and step.item in problem.text)


def figures(tally: Tally, wall_s: float) -> dict[str, Any]:
    return {
        "requests": tally.requests,
        "answered": tally.answered,
        "disconnected": tally.disconnected,
        "failed": tally.failed,
        "correct": tally.correct,
        "mixed_up": tally.mixed_up,
        "wall_s": wall_s,
        "requests_per_s": (tally.answered + tally.disconnected) / wall_s,
        "tokens_per_s": tally.tokens / wall_s,
        "latency_s": percentiles(tally.latencies_s),
        "first_text_s": percentiles(tally.first_text_s),
    }


def percentiles(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {f"p{p}": ordered[min(len(ordered) - 1, p * len(ordered) // 100)] for p in (50, 90, 99)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("url")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--leaving", type=float, default=0.0)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--pid", type=int)
    given = parser.parse_args()
    if given.seconds is not None:
        asking = load_for(given.url, given.seconds, given.concurrency, given.leaving, given.pid)
    else:
        asking = load(given.url, given.requests, given.concurrency, given.leaving)
    found = asyncio.run(asking)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
