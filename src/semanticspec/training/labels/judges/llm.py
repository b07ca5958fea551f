"""The judge `llm`: asks a language model behind an OpenAI-compatible chat completions endpoint."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING

from pydantic import HttpUrl, TypeAdapter, ValidationError

from semanticspec.errors import ConfigError, EngineError, first_line
from semanticspec.install_hints import install_hint
from semanticspec.training.labels.judges.base import Question, without_think_end
from semanticspec.training.labels.judges.cache import VerdictCache

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion

KEY_VARIABLE = "OPENAI_API_KEY"
_INSTRUCTION = (
    "You compare two candidate next steps of one and the same solution or text. They mean the same if a reader "
    "would learn the same from either: the same facts, about the same people and things, with the same numbers. "
    "Wording, order and style do not matter. If one states anything that the other does not, or contradicts it, "
    "they do not mean the same. Answer with one word, yes or no."
)
_PROMPT_VERSION = "1"  # part of the cache key: verdicts on another prompt are not reused
_THINKING = re.compile(r"<think>.*?</think>", re.DOTALL)
_ANSWER = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)
_RESUME = "verdicts so far are kept; rerun the same command to resume"


class LanguageModelJudge:
    """Asks for yes or no with greedy decoding, given the prompt and the output so far.

    The two segments are sorted before they are shown, so the verdict does not depend on their order.
    """

    name = "llm"

    def __init__(
        self,
        url: str,
        model: str,
        cache: VerdictCache | None = None,
        *,
        concurrency: int = 4,
        max_tokens: int = 16,
        max_retries: int = 5,
        timeout_s: float = 120.0,
    ) -> None:
        """Sends nothing yet. The API key is read from the environment variable `OPENAI_API_KEY`.

        Args:
            url: base URL including the version, such as http://localhost:8000/v1.
            model: the endpoint's name for its model.
            cache: verdicts given before; None keeps them in memory.
            concurrency: concurrent requests, >= 1.
            max_tokens: length limit of an answer, >= 1; reasoning models need more than the default.
            max_retries: retries of a request that failed (busy, server error, no connection), with backoff.
            timeout_s: time limit of one request.

        Raises:
            ConfigError: an argument is out of range.
            EngineError: the openai package is missing.
        """
        try:
            TypeAdapter(HttpUrl).validate_python(url)
        except ValidationError as error:
            raise ConfigError(
                f"--judge-url is {url!r}; expected a URL such as http://localhost:8000/v1"
            ) from error
        if min(concurrency, max_tokens) < 1 or max_retries < 0 or timeout_s <= 0:
            raise ConfigError(
                f"concurrency is {concurrency}, max_tokens {max_tokens}, max_retries {max_retries}, timeout_s "
                f"{timeout_s}; expected at least 1, 1 and 0, and a timeout above 0"
            )
        try:
            from openai import OpenAI
        except ImportError as error:
            raise EngineError(f"the judge llm needs the openai package: {install_hint('probes')}") from error
        self._url, self._model = url, model
        self._cache = VerdictCache() if cache is None else cache
        self._concurrency, self._max_tokens = concurrency, max_tokens
        self._client = OpenAI(
            base_url=url,
            api_key=os.environ.get(KEY_VARIABLE) or "none",
            max_retries=max_retries,
            timeout=timeout_s,
        )
        self.identity = f"{model}, prompt {_PROMPT_VERSION}"  # the same model may be served elsewhere

    def same(self, questions: Sequence[Question]) -> list[bool]:
        """Answers each question; stores every verdict as soon as it arrives.

        Raises:
            EngineError: the endpoint cannot be reached, refuses a request, or answers neither yes nor no.
        """
        keys = [self._key(question) for question in questions]
        asked = [key for key in dict.fromkeys(keys) if self._cache.get(*key) is None]
        with ThreadPoolExecutor(self._concurrency) as pool:
            futures = {pool.submit(self._ask, key): key for key in asked}
            try:
                for future in as_completed(futures):
                    self._cache.add({futures[future]: future.result()})
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # send no further requests
                raise
        return [bool(self._cache.get(*key)) for key in keys]

    def _key(self, question: Question) -> tuple[str, ...]:
        first, second = sorted(map(without_think_end, (question.first, question.second)))
        return (self.identity, question.problem, question.context, first, second)

    def _ask(self, key: tuple[str, ...]) -> bool:
        _, problem, context, first, second = key
        if first == second:
            return True
        return self._parse(self._request(_user_message(problem, context, first, second)))

    def _request(self, user_message: str) -> ChatCompletion:
        import openai

        try:
            return self._client.chat.completions.create(
                model=self._model,
                messages=[
                    {"role": "system", "content": _INSTRUCTION},
                    {"role": "user", "content": user_message},
                ],
                temperature=0,
                max_tokens=self._max_tokens,
            )
        except openai.APIConnectionError as error:
            cause = first_line(error.__cause__ or error)
            raise EngineError(
                f"no answer from {self._url} ({cause}); check --judge-url and the endpoint; {_RESUME}"
            ) from error
        except openai.APIStatusError as error:
            retryable = error.status_code == 429 or error.status_code >= 500
            fix = _RESUME if retryable else f"check --judge-model, --judge-url and {KEY_VARIABLE}"
            said = " ".join(error.response.text.split())[:200]
            raise EngineError(
                f"{self._url} answers with status {error.status_code}: {said}; {fix}"
            ) from error
        except (openai.APIError, ValueError) as error:
            raise self._not_a_completion(error) from error

    def _parse(self, completion: ChatCompletion) -> bool:
        """Raises EngineError for anything but yes or no."""
        try:
            text = completion.choices[0].message.content or ""
        except (AttributeError, IndexError, TypeError) as error:  # the client does not validate answers
            raise self._not_a_completion(completion) from error
        answer = _ANSWER.match(_THINKING.sub("", text))
        if answer is None:
            raise EngineError(
                f"the judge {self._model} answered {text[:100]!r}; expected yes or no; use a model that follows "
                "instructions, or raise --judge-max-tokens for a reasoning model"
            )
        return answer.group(1).lower() == "yes"

    def _not_a_completion(self, got: object) -> EngineError:
        text = " ".join(str(got).split())[:100]
        return EngineError(f"{self._url} does not return a chat completion, but {text!r}; check --judge-url")


def _user_message(problem: str, context: str, first: str, second: str) -> str:
    parts = [("Problem", problem), ("Solution so far", context), ("Step A", first), ("Step B", second)]
    shown = "\n\n".join(f"{name}:\n{text.strip()}" for name, text in parts if text.strip() or "Step" in name)
    return f"{shown}\n\nDo step A and step B mean the same? Answer yes or no."
