"""`semanticspec serve` as a process, with the bundled pair: load, signals, invalid settings."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from experiments.server.load import load
from semanticspec.demo.grammar import answer_of
from tests.support.serving_process import Serving, serving

pytestmark = pytest.mark.slow
MIA = [
    {
        "role": "user",
        "content": "Mia has 14 pens. Mia buys 23 more. Then Mia doubles the pens. How many pens does Mia have?",
    }
]
# Generates until the context is full, with this seed.
ENDLESS = {"messages": MIA, "temperature": 10, "top_p": 1, "seed": 1, "stream": True}


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    with serving() as one:
        yield one


def test_openai_client_gets_the_readme_answer(server):
    client = OpenAI(base_url=f"{server.url}/v1", api_key="none")
    model = client.models.list().data[0].id
    answer = client.chat.completions.create(model=model, messages=MIA, seed=0)
    assert answer_of(answer.choices[0].message.content) == 74
    stream = client.chat.completions.create(model=model, messages=MIA, seed=0, stream=True)
    deltas = [chunk.choices[0].delta for chunk in stream]
    assert "".join(delta.content or "" for delta in deltas) == answer.choices[0].message.content
    assert "".join(getattr(d, "reasoning", "") for d in deltas) == answer.choices[0].message.reasoning


async def test_under_load_every_request_gets_its_own_answer(server):
    found = await load(server.url, requests=200, concurrency=16)
    assert found["answered"] == 200, found
    assert found["mixed_up"] == 0
    assert found["correct"] >= 180, found  # the pair solves 98 % of such problems
    assert found["failed"] == []


async def test_disconnects_do_not_affect_other_clients(server):
    found = await load(server.url, requests=60, concurrency=16, leaving=0.3)
    assert found["disconnected"] > 5
    assert found["answered"] + found["disconnected"] == 60, found
    assert found["mixed_up"] == 0
    metrics = httpx.get(f"{server.url}/metrics").text
    assert re.search(r"num_requests_running\{.*\} 0\.0", metrics)
    assert re.search(
        rf'request_success_total{{finished_reason="abort",.*}} {found["disconnected"]}\.0', metrics
    )


def stream_and_stop(server: Serving, **fields) -> list[dict]:
    """Sends SIGTERM at the first text of a stream; returns all chunks."""
    chunks: list[dict] = []
    done = False
    with httpx.stream(
        "POST", f"{server.url}/v1/chat/completions", json=ENDLESS | fields, timeout=60
    ) as response:
        for line in response.iter_lines():
            if line == "data: [DONE]":
                done = True
            elif line.startswith("data: "):
                chunks.append(json.loads(line.removeprefix("data: ")))
                if len(chunks) == 3:
                    server.process.send_signal(signal.SIGTERM)
    assert done
    return chunks


def test_sigterm_lets_a_stream_finish():
    with serving() as server:
        chunks = stream_and_stop(server, max_tokens=200)
        assert chunks[-1]["choices"][0]["finish_reason"] in ("stop", "length")
        assert len(chunks) > 6  # the signal came when it had just begun
        assert server.process.wait(30) in (0, -signal.SIGTERM)
        assert "Traceback" not in "".join(server.log)


def test_sigterm_ends_a_late_stream_with_an_error():
    with serving("--shutdown-timeout-s", "0") as server:
        chunks = stream_and_stop(server)
        assert chunks[-1]["error"]["code"] == "shutting_down"
        assert server.process.wait(30) in (0, -signal.SIGTERM)
        assert "Traceback" not in "".join(server.log)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("prot: 8000", "unknown key prot"),
        ("port: many", "port"),
        ("- port", "no settings found"),
        ("port: [", "cannot be read"),
        ("engine: magic", "no engine 'magic'; choose from"),
        ("rule: best", "rule is 'best'; expected"),
        ("max-model-len: 1000000", "max_model_len"),
    ],
)
def test_invalid_settings_give_one_line_and_exit_code_2(tmp_path: Path, settings, message):
    file = tmp_path / "serve.yaml"
    file.write_text(settings)
    code = "from semanticspec.commands.main import main; main()"
    command = [sys.executable, "-c", code, "serve", "--config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
