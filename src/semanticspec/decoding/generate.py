"""Answers prompts: `generate`, `generate_async`, and `decode`, which yields events on the way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

from semanticspec.config import DecodingConfig
from semanticspec.decoding.context import RequestContext
from semanticspec.decoding.loop import Listener, run_loop
from semanticspec.decoding.pair import Pair
from semanticspec.decoding.transcript import Transcript
from semanticspec.decoding.verifiers import make_proposal_verifier, make_verifier
from semanticspec.decoding.verifiers.base import Verifier
from semanticspec.records import Event, Finished, Result
from semanticspec.text.chat import Prompt

T = TypeVar("T")
VerifierFactory = Callable[[RequestContext], Verifier]


def decode(
    pair: Pair,
    prompt: Prompt,
    config: DecodingConfig | None = None,
    *,
    verifier: VerifierFactory = make_verifier,
    proposal_verifier: VerifierFactory = make_proposal_verifier,
    listener: Listener | None = None,
    request_id: str | None = None,
) -> AsyncGenerator[Event, None]:
    """Answers a prompt; yields what happens, `Finished` last.

    Configuration and prompt are checked here, before the first event. Close the generator (`contextlib.aclosing`)
    to stop early; the pair stays usable.

    Args:
        prompt: a user's text, or chat messages (`role`, `content`).
        config: None = the defaults, with the optimizations of `Pair.with_default_optimizations`.
        verifier, proposal_verifier: make the verifiers of the request; by default those of `config.rule` and of
            token-level speculation. A verifier of your own replaces `config.rule` and what it needs.
        listener: watches the verdicts.
        request_id: a caching hint for the engines; made up if not given.

    Raises:
        PromptError: the prompt is empty or leaves no room for an answer.
        SemanticSpecError: the pair cannot run this configuration; see `Pair.check`.
    """
    config = config or pair.with_default_optimizations(DecodingConfig())
    request = RequestContext(pair, config, request_id)
    made = verifier(request)
    own_rule = verifier is make_verifier
    pair.check(config, verifier_distributions=None if own_rule else made.needs_distributions)
    transcript = Transcript(pair, prompt, config)
    return run_loop(request, transcript, made, proposal_verifier(request), listener)


async def generate_async(pair: Pair, prompt: Prompt, config: DecodingConfig | None = None) -> Result:
    """Answers a prompt and returns the result of `decode`."""
    return await result_of(decode(pair, prompt, config))


async def result_of(events: AsyncGenerator[Event, None]) -> Result:
    """Runs a request to its end."""
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Finished):
                return event.result
    raise AssertionError("a request ends with Finished")


def generate(pair: Pair, prompt: Prompt, config: DecodingConfig | None = None) -> Result:
    """Answers a prompt and returns the result. Also works inside a running event loop (a notebook)."""
    return run_blocking(generate_async(pair, prompt, config))


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
