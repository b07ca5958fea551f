"""The judge `llm`: requests, retries, errors and the cache, against a fake endpoint."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semanticspec.errors import ConfigError, EngineError
from semanticspec.training.labels.judges.cache import VerdictCache
from tests.support.judging import FakeEndpoint, ask, make_llm


def test_requests_are_greedy_and_independent_of_the_order_of_the_segments(
    endpoint: Callable[..., FakeEndpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    server = endpoint(
        lambda body: "Yes." if "apple" in body["messages"][1]["content"] else "<think>yes?</think>\nno"
    )
    judge = make_llm(server.url)
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
    assert all(headers["authorization"] == "Bearer sk-test" for headers in server.headers)


@pytest.mark.parametrize(
    ("busy", "least_wait_s"),
    [((429, {"Retry-After": "1"}, "slow down"), 2.0), ((503, {}, "loading"), 0.7)],
)
def test_a_busy_endpoint_is_asked_again_later(
    endpoint: Callable[..., FakeEndpoint], busy: Any, least_wait_s: float
) -> None:
    server = endpoint("no", [busy, busy])
    start = time.monotonic()
    assert make_llm(server.url).same([ask("a", "b")]) == [False]
    assert time.monotonic() - start > least_wait_s
    assert len(server.requests) == 3


def test_a_request_is_repeated_after_a_timeout(endpoint: Callable[..., FakeEndpoint]) -> None:
    def slow(_: Any) -> str:
        time.sleep(1.0)
        return "no"

    server = endpoint("yes", [slow])
    assert make_llm(server.url, timeout_s=0.3).same([ask("a", "b")]) == [True]
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("answer", "said", "requests"),
    [
        ("Perhaps, who knows", "answered 'Perhaps, who knows'; expected yes or no", 1),
        ("<think>yes, well", "expected yes or no", 1),
        ((200, {"Content-Type": "text/html"}, "<html>hello</html>"), "not return a chat completion", 1),
        ((200, {}, "hello"), "not return a chat completion", 1),
        ((200, {}, '{"choices": []}'), "not return a chat completion", 1),
        ((200, {}, "[]"), "not return a chat completion", 1),
        ((401, {}, "wrong key"), "status 401: wrong key; check .*OPENAI_API_KEY", 1),
        ((404, {}, "no such model"), "status 404: no such model; check --judge-model", 1),
        ((500, {}, ""), "status 500: ; verdicts so far are kept; rerun", 2),
    ],
)
def test_unusable_answers_end_in_one_line(
    endpoint: Callable[..., FakeEndpoint], answer: Any, said: str, requests: int
) -> None:
    server = endpoint(answer)
    with pytest.raises(EngineError, match=said) as caught:
        make_llm(server.url, max_retries=1).same([ask("a", "b")])
    assert len(server.requests) == requests
    assert "\n" not in str(caught.value)


def test_an_endpoint_that_is_not_there_ends_in_one_line() -> None:
    server = FakeEndpoint()
    server.close()
    with pytest.raises(EngineError, match=r"no answer from http://127.*; check --judge-url") as caught:
        make_llm(server.url, max_retries=1).same([ask("a", "b")])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:8000", "", "http://", "http://host:port/v1"])
def test_a_malformed_url_is_refused_before_any_request(url: str) -> None:
    with pytest.raises(ConfigError, match="--judge-url is"):
        make_llm(url)


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="concurrency is 0"):
        make_llm("http://localhost/v1", concurrency=0)


def test_verdicts_before_a_failure_are_kept(endpoint: Callable[..., FakeEndpoint], tmp_path: Path) -> None:
    server = endpoint(lambda body: "maybe" if "bad" in body["messages"][1]["content"] else "yes")
    cache = tmp_path / "verdicts.jsonl"
    questions = [ask("first", f"other {i}") for i in range(6)]
    judge = make_llm(server.url, VerdictCache(cache), concurrency=1)
    with pytest.raises(EngineError, match="expected yes or no"):
        judge.same([*questions, ask("first", "bad"), *(ask("first", f"later {i}") for i in range(20))])
    asked = len(server.requests)
    assert 7 <= asked <= 9  # a request may start before the failure is noticed
    assert make_llm(server.url, VerdictCache(cache)).same(questions) == [True] * 6
    assert len(server.requests) == asked


def test_requests_run_concurrently_up_to_the_limit(endpoint: Callable[..., FakeEndpoint]) -> None:
    server = endpoint(delay_s=0.1)
    judge = make_llm(server.url, concurrency=3)
    assert all(judge.same([ask("a", f"b {i}") for i in range(9)]))
    assert 1 < server.most_at_once <= 3
