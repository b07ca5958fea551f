"""Sends damaged requests to a running server and checks the responses.

    python experiments/server/fuzz.py http://127.0.0.1:8000 --requests 10000 --seed 0

Prints one JSON object: the number of responses by status, and faults: a 5xx status, a traceback, an error that is not
in OpenAI's format, a stream without an end marker, a broken connection. Start the server with a small
`--max-model-len`: requests that stay valid are decoded.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import json
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx

Json = Any
MESSAGES = [{"role": "user", "content": "Mia has 14 pens. Mia buys 23 more. How many pens does Mia have?"}]
INTACT: list[tuple[str, dict[str, Json]]] = [
    ("/v1/chat/completions", {"messages": MESSAGES, "seed": 0, "max_tokens": 8}),
    (
        "/v1/chat/completions",
        {
            "model": "bundled",
            "messages": [{"role": "system", "content": "Think."}, *MESSAGES],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_completion_tokens": 8,
            "temperature": 0.6,
            "top_p": 0.95,
            "speculation": {"enabled": True, "rule": "semantic", "strictness": 0.5, "segments": True},
        },
    ),
    ("/v1/chat/completions", {"messages": MESSAGES, "n": 2, "stop": ["pens", "\n\n"], "max_tokens": 8}),
    (
        "/v1/chat/completions",
        {
            "messages": [{"role": "user", "content": [{"type": "text", "text": "Mia has 2 pens."}]}],
            "max_tokens": 4,
            "user": "someone",
        },
    ),
    ("/v1/completions", {"prompt": ["Mia has", "Tom has"], "max_tokens": 4, "stop": "\n", "seed": 3}),
    ("/v1/completions", {"prompt": "Mia has 14 pens.", "stream": True, "max_tokens": 4, "temperature": 0}),
]
STRANGE: list[Json] = [
    None, True, False, 0, 1, -1, 0.5, -0.0, 1e308, 10**400, 2**63, -(2**63) - 1, "", " ", "\x00", "\ud800", "é" * 9,
    "a" * 20_000, "<think>", "</think>\n\n", "<|endoftext|>", "{{ 7 * 7 }}", "../../etc/passwd", "null", "0",
    [], [[]], {}, {"": None}, [None], ["a", 1], {"role": "user"}, {"type": "image_url", "image_url": {"url": "x"}},
]  # fmt: skip
FIELDS = [
    "tools", "logprobs", "response_format", "frequency_penalty", "logit_bias", "n", "stop", "stream", "seed", "model",
    "max_tokens", "max_completion_tokens", "messages", "prompt", "temperature", "top_p", "speculation", "echo",
    "best_of", "suffix", "__proto__", "self", "\x00", "extra_body", "min_p", "top_k", "stream_options", "user",
]  # fmt: skip
HEADERS = [
    {"content-type": "text/plain"}, {"content-type": ""}, {"content-type": "application/json; charset=utf-16"},
    {"content-encoding": "gzip"}, {"accept": "nothing/at-all"}, {"authorization": "Bearer é"},
    {"host": "evil.example"}, {"host": ""}, {"origin": "http://evil.example"}, {"expect": "100-continue"},
    {"x-" + "a" * 200: "b" * 4000}, {"connection": "close"}, {"last-event-id": "7"}, {"range": "bytes=0-1"},
]  # fmt: skip
PATHS = [
    "/", "/v1", "/v1/models", "/v1/models/bundled", "/v1/chat/completions/", "//v1/completions", "/v1/embeddings",
    "/metrics", "/health", "/version", "/docs", "/openapi.json", "/%00", "/../../etc/passwd", "/v1/%63ompletions",
]  # fmt: skip
METHODS = ["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "POST", "TRACE", "BREW"]


def damaged(rng: random.Random) -> dict[str, Any]:
    """Returns the arguments of `httpx.AsyncClient.request` for one damaged request."""
    path, body = copy.deepcopy(rng.choice(INTACT))
    for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3, 5))):
        rng.choice(DAMAGES)(rng, body)
    content = json.dumps(body, ensure_ascii=rng.random() < 0.9).encode("utf-8", "surrogatepass")
    if rng.random() < 0.15:
        content = damaged_bytes(rng, content)
    request = {"method": "POST", "url": path, "content": content}
    request["headers"] = {"content-type": "application/json"}
    if rng.random() < 0.08:
        request["headers"] |= rng.choice(HEADERS)
    if rng.random() < 0.04:
        request["url"] = rng.choice(PATHS)
    if rng.random() < 0.04:
        request["method"] = rng.choice(METHODS)
    return request


def set_strange(rng: random.Random, body: dict[str, Json]) -> None:
    """Replaces a random value by a strange one."""
    container, key = place_in(rng, body)
    container[key] = copy.deepcopy(rng.choice(STRANGE))


def remove(rng: random.Random, body: dict[str, Json]) -> None:
    container, key = place_in(rng, body)
    del container[key]


def add_field(rng: random.Random, body: dict[str, Json]) -> None:
    body[rng.choice(FIELDS)] = copy.deepcopy(rng.choice(STRANGE))


def swap(rng: random.Random, body: dict[str, Json]) -> None:
    """Exchanges two random values."""
    (container, key), (other, name) = place_in(rng, body), place_in(rng, body)
    container[key], other[name] = copy.deepcopy(other[name]), copy.deepcopy(container[key])


def nest(rng: random.Random, body: dict[str, Json]) -> None:
    """Wraps a random value in lists and objects."""
    container, key = place_in(rng, body)
    for _ in range(rng.choice((1, 2, 50, 150))):
        container[key] = [container[key]] if rng.random() < 0.5 else {"content": container[key]}


def repeat(rng: random.Random, body: dict[str, Json]) -> None:
    """Repeats the content of a random list or string."""
    container, key = place_in(rng, body)
    if isinstance(container[key], list | str):
        container[key] = container[key] * rng.choice((2, 10, 100))


DAMAGES: list[Callable[[random.Random, dict[str, Json]], None]] = [
    set_strange, remove, add_field, swap, nest, repeat
]  # fmt: skip


def place_in(rng: random.Random, body: dict[str, Json]) -> tuple[Any, Any]:
    """Returns a random container within the body, and a key or index of it; all depths are equally likely."""
    places: list[Any] = [body]
    found: list[tuple[Any, Any]] = []
    while places:
        container = places.pop()
        for key in container if isinstance(container, dict) else range(len(container)):
            found.append((container, key))
            if isinstance(container[key], dict | list) and len(found) < 200:
                places.append(container[key])
    if not found:
        body["messages"] = None
        found.append((body, "messages"))
    return rng.choice(found)


def damaged_bytes(rng: random.Random, content: bytes) -> bytes:
    """Changes, removes, repeats or adds bytes."""
    at = rng.randrange(len(content))
    return rng.choice(
        (
            content[:at],
            content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :],
            content[:at] + rng.randbytes(rng.choice((1, 4, 1000))) + content[at:],
            content + content,
            content[:at] + content[at // 2 :],
            b"",
            b"\xef\xbb\xbf" + content,
            content.decode("utf-8", "replace").encode("utf-16"),
            b"[" * 5000,
            b"[" * 5000 + b"]" * 5000,
            b'{"a":' * 5000,
        )
    )


async def fuzz(url: str, requests: int, seed: int, concurrency: int) -> dict[str, Any]:
    """Sends the requests; returns statuses and faults."""
    statuses: Counter[str] = Counter()
    faults: list[dict[str, Any]] = []
    waiting = iter(range(requests))

    async def worker(client: httpx.AsyncClient) -> None:
        for number in waiting:
            request = damaged(random.Random(f"{seed}-{number}"))
            try:
                answer = await client.request(**request)
            except (httpx.InvalidURL, httpx.LocalProtocolError, UnicodeError):
                statuses["not sent"] += 1  # httpx refuses it
                continue
            except httpx.HTTPError as error:
                faults.append({"number": number, "fault": repr(error)})
                continue
            statuses[str(answer.status_code)] += 1
            if (fault := fault_of(request, answer)) is not None:
                faults.append({"number": number, "fault": fault, "answer": answer.text[:500]})

    async with httpx.AsyncClient(base_url=url, timeout=120) as client:
        await asyncio.gather(*(worker(client) for _ in range(concurrency)))
    return {"requests": requests, "statuses": dict(sorted(statuses.items())), "faults": faults}


def fault_of(request: dict[str, Any], answer: httpx.Response) -> str | None:
    """Returns what is wrong with a response; None if nothing is."""
    if answer.status_code >= 500:
        return "a 5xx status"
    if "Traceback" in answer.text or 'File "' in answer.text:
        return "a traceback"
    if answer.status_code >= 400 and request["method"] != "HEAD":
        return None if is_error(answer) else "an error that is not in OpenAI's format"
    if answer.headers.get("content-type", "").startswith("text/event-stream"):
        lines = [line for line in answer.text.split("\n") if line.startswith("data: ")]
        if not lines or lines[-1] != "data: [DONE]":
            return "a stream without an end marker"
        if any("error" in json.loads(line.removeprefix("data: ")) for line in lines[:-1]):
            return "a failed stream"
    return None


def is_error(answer: httpx.Response) -> bool:
    try:
        error = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        return False
    return (
        isinstance(error, dict) and isinstance(error.get("message"), str) and error.keys() >= {"type", "code"}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("url")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--concurrency", type=int, default=8)
    given = parser.parse_args()
    found = asyncio.run(fuzz(given.url, given.requests, given.seed, given.concurrency))
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
