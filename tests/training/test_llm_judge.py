"""The judge that asks a language model behind an endpoint."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semanticspec.errors import ConfigError, EngineError
from semanticspec.training.labels.judges.cache import VerdictCache
from semanticspec.training.labels.judges.llm import Endpoint
from tests.support.judging import FakeEndpoint, ask, make_llm


def test_llm_asks_greedily_and_in_an_order_of_its_own(
    endpoint: Callable[..., FakeEndpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    server = endpoint(
        lambda body: "Yes." if "apple" in body["messages"][1]["content"] else "<think>yes?</think>\nno"
    )
    judge, _ = make_llm(server.url)
    questions = [
        ask("one apple", "an apple", "the problem", "so far"),
        ask("an apple", "one apple\n\n", "the problem", "so far"),
        ask("a pear", "a plum"),
        ask("equal", " equal</think>"),
    ]
    assert judge.same(questions) == [True, True, False, True]
    assert len(server.requests) == 2
    request = next(body for body in server.requests if "apple" in body["messages"][1]["content"])
    assert (request["temperature"], request["model"]) == (0, "some-model")
    told = request["messages"][1]["content"]
    assert told.index("the problem") < told.index("so far") < told.index("an apple") < told.index("one apple")
    assert all(headers["Authorization"] == "Bearer sk-test" for headers in server.headers)


@pytest.mark.parametrize(
    ("trouble", "least_wait_s"),
    [((429, {"Retry-After": "7"}, "slow down"), 7.0), ((503, {}, "loading"), 1.0)],
)
def test_llm_waits_while_the_endpoint_is_busy(
    endpoint: Callable[..., FakeEndpoint], trouble: Any, least_wait_s: float
) -> None:
    server = endpoint("no", [trouble, trouble])
    judge, waits = make_llm(server.url)
    assert judge.same([ask("a", "b")]) == [False]
    assert len(server.requests) == 3
    assert waits[0] == least_wait_s
    assert waits[1] >= 2 * waits[0]


def test_llm_tries_again_after_a_timeout(endpoint: Callable[..., FakeEndpoint]) -> None:
    def slow(_: Any) -> str:
        time.sleep(1.0)
        return "no"

    server = endpoint("yes", [slow])
    judge, waits = make_llm(server.url, timeout_s=0.3)
    assert judge.same([ask("a", "b")]) == [True]
    assert len(waits) == 1


@pytest.mark.parametrize(
    ("answer", "said", "requests"),
    [
        ("Perhaps, who knows", "neither yes nor no", 1),
        ("<think>yes, well", "neither yes nor no", 1),
        ((200, {}, "<html>hello</html>"), "like a chat completion", 1),
        ((200, {}, '{"choices": []}'), "like a chat completion", 1),
        ((401, {}, "wrong key"), "status 401: wrong key", 1),
        ((404, {}, "no such model"), "status 404", 1),
        ((500, {}, ""), "no answer in 3 attempts", 3),
    ],
)
def test_llm_endpoint_that_does_not_do(
    endpoint: Callable[..., FakeEndpoint], answer: Any, said: str, requests: int
) -> None:
    server = endpoint(answer)
    judge, _ = make_llm(server.url, attempts=3)
    with pytest.raises(EngineError, match=said) as caught:
        judge.same([ask("a", "b")])
    assert len(server.requests) == requests
    assert "\n" not in str(caught.value)


def test_llm_without_an_endpoint() -> None:
    server = FakeEndpoint()
    server.close()
    judge, waits = make_llm(server.url)
    with pytest.raises(EngineError, match="no endpoint answers at http://127"):
        judge.same([ask("a", "b")])
    assert not waits
    for url in ("localhost:8000", "", "http://"):
        with pytest.raises(ConfigError, match="--judge-url"):
            Endpoint(url, "m")


def test_llm_answers_before_a_failure_are_kept(endpoint: Callable[..., FakeEndpoint], tmp_path: Path) -> None:
    server = endpoint(lambda body: "maybe" if "bad" in body["messages"][1]["content"] else "yes")
    cache = tmp_path / "verdicts.jsonl"
    questions = [ask("first", f"other {i}") for i in range(6)]
    judge, _ = make_llm(server.url, VerdictCache(cache), concurrency=1)
    with pytest.raises(EngineError, match="neither"):
        judge.same([*questions, ask("first", "bad"), *(ask("first", f"later {i}") for i in range(20))])
    assert len(server.requests) == 7
    again, _ = make_llm(server.url, VerdictCache(cache))
    assert again.same(questions) == [True] * 6
    assert len(server.requests) == 7


def test_llm_asks_a_few_at_once(endpoint: Callable[..., FakeEndpoint]) -> None:
    server = endpoint(delay_s=0.1)
    judge, _ = make_llm(server.url, concurrency=3)
    assert all(judge.same([ask("a", f"b {i}") for i in range(9)]))
    assert 1 < server.most_at_once <= 3
