"""Answers prompts: `generate`, `generate_async`, and `decode`, which yields events on the way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar, Unpack, overload

from semanticspec.config import DecodingConfig, Overrides, with_options
from semanticspec.decoding.context import RequestContext
from semanticspec.decoding.loop import Listener, run_loop
from semanticspec.decoding.pair import Pair
from semanticspec.decoding.prompts import Prompts, check_prompt, is_list_of_prompts
from semanticspec.decoding.transcript import Transcript
from semanticspec.decoding.verifiers import make_proposal_verifier, make_verifier
from semanticspec.decoding.verifiers.base import Verifier
from semanticspec.errors import ConfigError
from semanticspec.records import Event, Finished, Result
from semanticspec.text.chat import Prompt

T = TypeVar("T")
VerifierFactory = Callable[[RequestContext], Verifier]
_MAX_CONCURRENT_PROMPTS = 16


def decode(
    pair: Pair,
    prompt: Prompt,
    config: DecodingConfig | None = None,
    *,
    verifier: VerifierFactory = make_verifier,
    proposal_verifier: VerifierFactory = make_proposal_verifier,
    listener: Listener | None = None,
    request_id: str | None = None,
    **overrides: Unpack[Overrides],
) -> AsyncGenerator[Event, None]:
    """Answers a prompt; yields what happens, `Finished` last.

    Configuration and prompt are checked here, before the first event. Close the generator (`contextlib.aclosing`)
    to stop early; the pair stays usable.

    Args:
        prompt: a user's text, or chat messages (`role`, `content`).
        config: None = `DecodingConfig()`. The pair decides on optimizations that it leaves open, see `Pair.resolve`.
        verifier, proposal_verifier: make the verifiers of the request; by default those of `config.rule` and of
            token-level speculation. A verifier of your own replaces `config.rule` and what it needs.
        listener: watches the verdicts.
        request_id: a caching hint for the engines; made up if not given.
        overrides: settings that replace those of `config`, for example `max_new_tokens=200, temperature=0`.

    Raises:
        PromptError: the prompt is empty, of a wrong type, or leaves no room for an answer.
        SemanticSpecError: the pair cannot run this configuration; see `Pair.check`.
    """
    _check_types(pair, config)
    check_prompt(prompt)
    config = pair.resolve(with_options(config or DecodingConfig(), **overrides))
    request = RequestContext(pair, config, request_id)
    made = verifier(request)
    own_rule = verifier is make_verifier
    pair.check(config, verifier_distributions=None if own_rule else made.needs_distributions)
    transcript = Transcript(pair, prompt, config)
    return run_loop(request, transcript, made, proposal_verifier(request), listener)


@overload
async def generate_async(
    pair: Pair, prompt: Prompt, config: DecodingConfig | None = None, **overrides: Unpack[Overrides]
) -> Result: ...
@overload
async def generate_async(
    pair: Pair, prompt: Prompts, config: DecodingConfig | None = None, **overrides: Unpack[Overrides]
) -> list[Result]: ...
async def generate_async(
    pair: Pair, prompt: Prompt | Prompts, config: DecodingConfig | None = None, **overrides: Unpack[Overrides]
) -> Result | list[Result]:
    """Answers a prompt, or each of a list of prompts; see `generate`."""
    if is_list_of_prompts(prompt):
        return await _answer_all([decode(pair, each, config, **overrides) for each in prompt])
    return await result_of(decode(pair, prompt, config, **overrides))


async def result_of(events: AsyncGenerator[Event, None]) -> Result:
    """Runs a request to its end."""
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Finished):
                return event.result
    raise AssertionError("a request ends with Finished")


async def _answer_all(requests: list[AsyncGenerator[Event, None]]) -> list[Result]:
    """Runs requests concurrently; if one fails, the others are stopped."""
    slots = asyncio.Semaphore(_MAX_CONCURRENT_PROMPTS)

    async def answer(events: AsyncGenerator[Event, None]) -> Result:
        async with slots:
            return await result_of(events)

    tasks = [asyncio.create_task(answer(events)) for events in requests]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@overload
def generate(
    pair: Pair, prompt: Prompt, config: DecodingConfig | None = None, **overrides: Unpack[Overrides]
) -> Result: ...
@overload
def generate(
    pair: Pair, prompt: Prompts, config: DecodingConfig | None = None, **overrides: Unpack[Overrides]
) -> list[Result]: ...
def generate(
    pair: Pair, prompt: Prompt | Prompts, config: DecodingConfig | None = None, **overrides: Unpack[Overrides]
) -> Result | list[Result]:
    """Answers a prompt and returns the result. Also works inside a running event loop (a notebook).

    Args:
        prompt: a user's text, or chat messages (`role`, `content`); or a list of such prompts, which are answered
            concurrently, all with the same seed.
        config: None = `DecodingConfig()`; see `decode`.
        overrides: settings that replace those of `config`, for example `max_new_tokens=200, temperature=0`.

    Returns:
        The result; for a list of prompts, a list of results in the same order.

    Raises:
        PromptError, ConfigError, ProbeError, EngineError: see `decode`. All prompts are checked before the first is
            answered.
    """
    answer: Coroutine[Any, Any, Result | list[Result]] = generate_async(pair, prompt, config, **overrides)
    return run_blocking(answer)


def run_blocking(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end, in a thread of its own if this thread already runs an event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    outcome: list[T] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            outcome.append(asyncio.run(coroutine))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=work, name="semanticspec-generate")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def _check_types(pair: object, config: object) -> None:
    """Raises ConfigError for arguments of wrong types, such as a model name in place of a pair."""
    if not isinstance(pair, Pair):
        raise ConfigError(
            f"the pair is {pair!r}; expected what load_pair returns: generate(load_pair(...), prompt)"
        )
    if config is not None and not isinstance(config, DecodingConfig):
        raise ConfigError(
            f"the configuration is {config!r}; expected a DecodingConfig, for example DecodingConfig(seed=1)"
        )
