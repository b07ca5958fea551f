"""Damaged and invented requests to `semanticspec serve`: no status of 500 and more, no traceback, and it goes on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest

from experiments.server.fuzz import fault_of, fuzz
from semanticspec.demo.grammar import answer_of
from tests.support.serving_process import Serving, serving

pytestmark = pytest.mark.slow
QUESTION = {
    "messages": [
        {
            "role": "user",
            "content": "Tom has 30 apples. Tom gives away 12 apples. How many apples does Tom have?",
        }
    ],
    "seed": 0,
}


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    """Its answers are short and few at a time, since many of such requests are in order and are answered."""
    with serving("--max-model-len", "128", "--max-queued-requests", "8") as one:
        yield one
        assert "Traceback" not in "".join(one.log)


def answers_rightly(server: Serving) -> bool:
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=QUESTION, timeout=60).json()
    return answer_of(answer["choices"][0]["message"]["content"]) == 18


async def test_damaged_requests_are_refused_and_the_server_goes_on(server):
    found = await fuzz(server.url, requests=600, seed=0, concurrency=8)
    assert found["faults"] == []
    # Damage is neither so slight that all is answered nor so bad that nothing is read.
    assert found["statuses"]["200"] > 60
    assert found["statuses"]["400"] > 200
    assert answers_rightly(server)


def test_what_openapi_tells_is_what_the_server_does(server):
    """Not checked: that whatever fits the schema is answered. An empty prompt fits it, and so does an unknown model."""
    command = [
        sys.executable,
        "-m",
        "schemathesis.cli",
        "run",
        f"{server.url}/openapi.json",
        "--checks",
        "all",
    ]
    command += ["--exclude-checks", "positive_data_acceptance", "--max-examples", "30", "--seed", "0"]
    command += ["--request-timeout", "120", "--max-response-time", "110", "--no-shrink"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-4000:]
    assert answers_rightly(server)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (httpx.Response(500, json={"error": {"message": "", "type": "", "code": None}}), "a status of 500"),
        (httpx.Response(400, text='Traceback (most recent call last):\n  File "x.py"'), "a traceback"),
        (httpx.Response(422, json={"detail": []}), "an error that is not told in OpenAI's form"),
        (
            httpx.Response(200, headers={"content-type": "text/event-stream"}, text='data: {"a": 1}\n'),
            "without its end",
        ),
        (
            httpx.Response(
                200,
                headers={"content-type": "text/event-stream"},
                text='data: {"error": 1}\n\ndata: [DONE]\n',
            ),
            "a stream that failed",
        ),
        (httpx.Response(400, json={"error": {"message": "no", "type": "t", "code": None}}), None),
    ],
)
def test_the_fuzzer_sees_faults(answer, fault):
    found = fault_of({"method": "POST"}, answer)
    assert found is None if fault is None else fault in found
