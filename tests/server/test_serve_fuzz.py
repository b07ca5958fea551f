"""Damaged and generated requests to `semanticspec serve`: no 5xx, no traceback, and it keeps running."""

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
    """Outputs are short: many of these requests are valid and get decoded."""
    with serving("--max-model-len", "128", "--max-queued-requests", "8") as one:
        yield one
        assert "Traceback" not in "".join(one.log)


def answers_correctly(server: Serving) -> bool:
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=QUESTION, timeout=60).json()
    return answer_of(answer["choices"][0]["message"]["content"]) == 18


async def test_damaged_requests_are_refused_and_the_server_keeps_running(server):
    found = await fuzz(server.url, requests=600, seed=0, concurrency=8)
    assert found["faults"] == []
    # A mix: enough requests are valid, and enough are not.
    assert found["statuses"]["200"] > 60
    assert found["statuses"]["400"] > 200
    assert answers_correctly(server)


def test_the_server_conforms_to_its_openapi_schema(server):
    """Except that a request may fit the schema and still be refused: an empty prompt, an unknown model."""
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
    assert answers_correctly(server)


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (httpx.Response(500, json={"error": {"message": "", "type": "", "code": None}}), "a 5xx status"),
        (httpx.Response(400, text='Traceback (most recent call last):\n  File "x.py"'), "a traceback"),
        (httpx.Response(422, json={"detail": []}), "an error that is not in OpenAI's format"),
        (
            httpx.Response(200, headers={"content-type": "text/event-stream"}, text='data: {"a": 1}\n'),
            "without an end marker",
        ),
        (
            httpx.Response(
                200,
                headers={"content-type": "text/event-stream"},
                text='data: {"error": 1}\n\ndata: [DONE]\n',
            ),
            "a failed stream",
        ),
        (httpx.Response(400, json={"error": {"message": "no", "type": "t", "code": None}}), None),
    ],
)
def test_the_fuzzer_detects_faults(answer, fault):
    found = fault_of({"method": "POST"}, answer)
    assert found is None if fault is None else fault in found
