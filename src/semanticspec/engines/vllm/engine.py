"""Engine over vLLM: one GPU or many, many requests at once.

vLLM runs in processes of its own, and its asynchronous interface on an event loop of its own (`loop_thread`), so that
callers may come from any. Where things are: options and the version of vLLM in `vllm_options`, starting it in
`vllm_loading`, what is asked and answered in `vllm_calls`, pooling inside vLLM in `vllm_connector`, how the pooled
states come from there in `vllm_mailbox`, and the final norm in `vllm_norm`.

Unlike other engines', its samples are drawn by vLLM: the same call gives the same text for the same seed, but a text
that is written in two calls is another than one written in one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from semanticspec.engines.base import EngineInfo, StateSpec, TokenChunk
from semanticspec.engines.runtime.checks import checked_context, checked_continuations
from semanticspec.engines.runtime.generation import WriteRequest
from semanticspec.engines.vllm.calls import Caller
from semanticspec.engines.vllm.loading import Started, start
from semanticspec.engines.vllm.loop_thread import LoopThread
from semanticspec.engines.vllm.options import VllmOptions, check_version
from semanticspec.errors import EngineError
from semanticspec.records import Generation, Sampling, Score, Stop


class VllmEngine:
    """Implements `semanticspec.engines.base.Engine` and `Forgetting`."""

    def __init__(self, thread: LoopThread, started: Started) -> None:
        """Use `load`."""
        self._thread, self._info = thread, started.info
        # None once closed: vLLM's objects must not outlive the interpreter.
        self._started: Started | None = started

    @classmethod
    def load(
        cls,
        model: str,
        *,
        options: VllmOptions = VllmOptions(),  # noqa: B008
        states: StateSpec = StateSpec(),  # noqa: B008
    ) -> VllmEngine:
        """Starts vLLM with a model.

        Args:
            model: hub name or folder.
            states: which states its readings hold: of the last layer only, pooled only.

        Raises:
            ConfigError: vLLM refuses an argument, or cannot give these states.
            ModelError: vLLM cannot run the model.
            EngineError: vLLM is missing, or of a version that is not known.
        """
        check_version()
        thread = LoopThread(f"vllm-{model}")
        try:
            return cls(thread, thread.wait(start(model, options, states)))
        except BaseException:
            thread.stop()
            raise

    @property
    def info(self) -> EngineInfo:
        return self._info

    async def generate(
        self,
        context_ids: Sequence[int],
        *,
        n: int = 1,
        max_tokens: int,
        stop: Stop,
        sampling: Sampling,
        seed: int = 0,
        distributions: bool = False,
        request_id: str | None = None,
    ) -> list[Generation]:
        """See `Engine.generate`."""
        if n < 1:
            raise EngineError(f"n is {n}; expected 1 or more continuations")
        caller = self._caller(distributions)
        request = self._request(context_ids, n, max_tokens, stop, sampling, seed, request_id)
        return await self._thread.run(caller.write(request))

    async def stream(
        self,
        context_ids: Sequence[int],
        *,
        max_tokens: int,
        stop: Stop,
        sampling: Sampling,
        seed: int = 0,
        request_id: str | None = None,
    ) -> AsyncGenerator[TokenChunk | Generation, None]:
        """See `Engine.stream`."""
        caller = self._caller()
        request = self._request(context_ids, 1, max_tokens, stop, sampling, seed, request_id)
        async with aclosing(self._thread.iterate(caller.stream(request))) as items:
            async for item in items:
                yield item

    async def score(
        self,
        context_ids: Sequence[int],
        continuations: Sequence[Sequence[int]],
        *,
        sampling: Sampling | None = None,
        seed: int = 0,
        distributions: bool = False,
        request_id: str | None = None,  # noqa: ARG002
    ) -> list[Score]:
        """See `Engine.score`. `request_id` is not needed: blocks of equal beginnings are shared by all."""
        caller = self._caller(distributions)
        rows = checked_continuations(self.info, continuations)
        context = checked_context(self.info, context_ids, max(map(len, rows)) + 1, sampling)
        return await self._thread.run(caller.score(context, rows, sampling, seed))

    async def forget(self) -> None:
        """See `Forgetting.forget`."""
        await self._thread.run(self._caller().forget())

    async def aclose(self) -> None:
        """Ends vLLM's processes; calls under way fail with an EngineError."""
        started, self._started = self._started, None
        if started is not None:
            await self._thread.run(started.aclose())
            await asyncio.to_thread(self._thread.stop)

    def _request(
        self,
        context_ids: Sequence[int],
        n: int,
        max_tokens: int,
        stop: Stop,
        sampling: Sampling,
        seed: int,
        request_id: str | None,
    ) -> WriteRequest:
        if stop.pair_second:
            raise EngineError(
                "the engine vllm cannot stop at blank lines that are two tokens; use --engine transformers"
            )
        context = checked_context(self.info, context_ids, max_tokens, sampling)
        return WriteRequest(context, n, max_tokens, stop, sampling, seed, False, request_id)

    def _caller(self, distributions: bool = False) -> Caller:
        if self._started is None:
            raise EngineError("the engine is closed; load the model again")
        if distributions:
            raise EngineError("the engine vllm gives no distributions; use --engine transformers")
        return self._started.caller
