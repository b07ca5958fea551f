"""A language model as judge, behind any endpoint that speaks OpenAI's chat completions."""

from __future__ import annotations

import importlib
import os
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from threading import Event
from typing import Any

from semanticspec.errors import ConfigError, EngineError
from semanticspec.training.labels.judges.base import THINK_END, Question
from semanticspec.training.labels.judges.cache import VerdictCache

KEY_VARIABLE = "OPENAI_API_KEY"
_INSTRUCTION = (
    "You compare two candidate next steps of one and the same solution or text. They mean the same if a reader "
    "would learn the same from either: the same facts, about the same people and things, with the same numbers. "
    "Wording, order and style do not matter. If one states anything that the other does not, or contradicts it, "
    "they do not mean the same. Answer with one word, yes or no."
)
_PROMPT_VERSION = "1"  # part of the cache's keys: a new prompt is a new question
_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
_ANSWER = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)
_LONGEST_WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where and how to ask.

    Attributes:
        url: up to and including the version, such as http://localhost:8000/v1.
        model: the name the endpoint knows it by.
        concurrency: requests at once, >= 1.
        timeout_s: of one request.
        max_tokens: of an answer; a model that thinks first needs more.
        attempts: at most so many for one question, >= 1.
        first_wait_s: before the second attempt; doubled before each further one, at most a minute.
    """

    url: str
    model: str
    concurrency: int = 4
    timeout_s: float = 120.0
    max_tokens: int = 16
    attempts: int = 6
    first_wait_s: float = 1.0

    def __post_init__(self) -> None:
        if not re.match(r"https?://\S+$", self.url):
            raise ConfigError(f"--judge-url is {self.url!r}; expected one such as http://localhost:8000/v1")
        if not self.model:
            raise ConfigError("--judge-model is empty; expected the name the endpoint knows its model by")
        if min(self.concurrency, self.max_tokens, self.attempts) < 1 or self.timeout_s <= 0:
            raise ConfigError("an endpoint needs concurrency, max_tokens, attempts and timeout_s above 0")


class LanguageModelJudge:
    """Asks yes or no, greedily, with prompt and context; the two segments go in an order of their own, so that
    an answer does not depend on which came first."""

    name = "llm"

    def __init__(
        self,
        endpoint: Endpoint,
        cache: VerdictCache | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Raises EngineError where httpx2 is missing. The key comes from the environment, `OPENAI_API_KEY`."""
        self._endpoint = endpoint
        self._cache = VerdictCache() if cache is None else cache
        self._sleep = sleep
        self._http = _httpx()
        key = os.environ.get(KEY_VARIABLE, "")
        self._client = self._http.Client(
            timeout=endpoint.timeout_s, headers={"Authorization": f"Bearer {key}"} if key else {}
        )
        self._reached = False
        self.identity = f"{endpoint.model}, prompt {_PROMPT_VERSION}"  # wherever it is served

    def same(self, questions: Sequence[Question]) -> list[bool]:
        """An answer for each question; every answer is stored as it comes in.

        Raises:
            EngineError: the endpoint cannot be reached, refuses, or says neither yes nor no.
        """
        keys = [self._key(question) for question in questions]
        asked = [key for key in dict.fromkeys(keys) if self._cache.get(*key) is None]
        stopped = Event()  # one failure ends all: no further request is sent

        def ask(key: tuple[str, ...]) -> bool | None:
            try:
                return None if stopped.is_set() else self._ask(key)
            except BaseException:
                stopped.set()
                raise

        pool = ThreadPoolExecutor(self._endpoint.concurrency)
        futures = {pool.submit(ask, key): key for key in asked}
        try:
            for future in as_completed(futures):
                if not future.exception() and (said := future.result()) is not None:
                    self._cache.add({futures[future]: said})
        finally:
            stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
        for future in futures:
            future.result()  # raises what went wrong
        return [bool(self._cache.get(*key)) for key in keys]

    def _key(self, question: Question) -> tuple[str, ...]:
        first, second = sorted(_plain(text) for text in (question.first, question.second))
        return (self.identity, question.problem, question.context, first, second)

    def _ask(self, key: tuple[str, ...]) -> bool:
        _, problem, context, first, second = key
        if first == second:
            return True
        body = {
            "model": self._endpoint.model,
            "messages": [
                {"role": "system", "content": _INSTRUCTION},
                {"role": "user", "content": _task(problem, context, first, second)},
            ],
            "temperature": 0,
            "max_tokens": self._endpoint.max_tokens,
        }
        return self._read(self._post(body))

    def _post(self, body: dict[str, Any]) -> Any:
        """The response to a request, tried again while the endpoint is busy, ill or slow.

        Raises:
            EngineError: it stays so, refuses the request, or was never there.
        """
        url = self._endpoint.url.rstrip("/") + "/chat/completions"
        trouble, wait_s = "", self._endpoint.first_wait_s
        for attempt in range(self._endpoint.attempts):
            if attempt:
                self._sleep(min(wait_s, _LONGEST_WAIT_S))
                wait_s *= 2
            try:
                response = self._client.post(url, json=body)
            except self._http.TransportError as error:
                trouble = f"{type(error).__name__} {error}".strip()
                if isinstance(error, self._http.TimeoutException) or self._reached:
                    continue
                raise EngineError(
                    f"no endpoint answers at {url} ({trouble}); start one there, or check --judge-url"
                ) from error
            except self._http.InvalidURL as error:
                raise EngineError(f"{url!r} is no address ({error}); check --judge-url") from error
            self._reached = True
            if response.status_code == 429 or response.status_code >= 500:
                trouble = f"status {response.status_code}"
                wait_s = max(wait_s, _seconds(response.headers.get("Retry-After", "")))
                continue
            if response.status_code != 200:
                said = " ".join(response.text.split())[:200]
                raise EngineError(
                    f"{url} refuses with status {response.status_code}: {said}; check --judge-model, --judge-url "
                    f"and {KEY_VARIABLE}"
                )
            return response
        raise EngineError(
            f"{url} gave no answer in {self._endpoint.attempts} attempts ({trouble}); answers so far are kept, "
            "the same command goes on"
        )

    def _read(self, response: Any) -> bool:
        try:
            said = str(response.json()["choices"][0]["message"]["content"] or "")
        except (ValueError, KeyError, IndexError, TypeError) as error:
            text = " ".join(response.text.split())[:100]
            raise EngineError(
                f"{self._endpoint.url} does not answer like a chat completion: {text!r}; check --judge-url"
            ) from error
        answer = _ANSWER.match(_THOUGHT.sub("", said))
        if answer is None:
            raise EngineError(
                f"the judge {self._endpoint.model} said {said[:100]!r}, neither yes nor no; use a model that follows "
                "instructions, and for one that thinks first a higher --judge-max-tokens"
            )
        return answer.group(1).lower() == "yes"


def _task(problem: str, context: str, first: str, second: str) -> str:
    parts = [("Problem", problem), ("Solution so far", context), ("Step A", first), ("Step B", second)]
    told = "\n\n".join(f"{name}:\n{text.strip()}" for name, text in parts if text.strip() or "Step" in name)
    return f"{told}\n\nDo step A and step B mean the same? Answer yes or no."


def _plain(text: str) -> str:
    return text.replace(THINK_END, " ").strip()


def _seconds(header: str) -> float:
    """What `Retry-After` asks for; 0 for none, or for a date."""
    return float(header) if re.fullmatch(r"\d+(\.\d+)?", header.strip()) else 0.0


def _httpx() -> Any:
    try:
        return importlib.import_module("httpx2")
    except ImportError as error:
        raise EngineError(
            "the judge llm needs the package httpx2: pip install 'semanticspec[probes]'"
        ) from error
