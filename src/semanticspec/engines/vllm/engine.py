"""Engine over vLLM: one or several GPUs, many concurrent requests.

vLLM runs in processes of its own, and its asynchronous interface on an event loop of its own, so that callers may use
any event loop. Pooled hidden states come from a connector inside vLLM (`connector`) through a socket (`mailbox`).

Unlike the other engines, vLLM samples itself: the same call with the same seed gives the same text, but two calls for
two halves of a text give another text than one call for both (`Capabilities.position_seeds`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from semanticspec.engines.base import EngineInfo, StateSpec, TokenChunk
from semanticspec.engines.runtime.engine import BaseEngine
from semanticspec.engines.runtime.requests import GenerateRequest, ScoreRequest
from semanticspec.engines.vllm.client import VllmClient
from semanticspec.engines.vllm.generation import generate, stream
from semanticspec.engines.vllm.loading import start_vllm
from semanticspec.engines.vllm.loop_thread import LoopThread
from semanticspec.engines.vllm.options import VllmOptions, check_version
from semanticspec.engines.vllm.scoring import score
from semanticspec.records import Generation, Score


class VllmEngine(BaseEngine):
    """Implements `Engine` and `ResettableCache`. Use `load` to make one."""

    def __init__(self, thread: LoopThread, client: VllmClient, info: EngineInfo) -> None:
        super().__init__(info)
        self._thread = thread
        self._client = client

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
            options: see `VllmOptions`.
            states: which hidden states to return: the last layer's, pooled by mean or last.

        Raises:
            ConfigError: vLLM refuses an argument, or cannot return these states.
            ModelError: vLLM cannot run the model.
            EngineError: vLLM is not installed, or has an unsupported version.
        """
        check_version()
        thread = LoopThread(f"vllm-{model}")
        try:
            client, info = thread.wait(start_vllm(model, options, states))
        except BaseException:
            thread.stop()
            raise
        return cls(thread, client, info)

    async def reset_cache(self) -> None:
        """See `ResettableCache.reset_cache`."""
        self._check_open()
        await self._thread.run(self._client.reset_cache())

    async def aclose(self) -> None:
        """Ends vLLM's processes. Running calls fail with an EngineError."""
        if not self.closed:
            self.closed = True
            await self._thread.run(self._client.aclose())
            await asyncio.to_thread(self._thread.stop)
            del self._client  # vLLM's objects must not outlive the interpreter

    async def _generate(self, request: GenerateRequest) -> list[Generation]:
        return await self._thread.run(generate(self._client, request))

    async def _stream(self, request: GenerateRequest) -> AsyncGenerator[TokenChunk | Generation, None]:
        async with aclosing(self._thread.iterate(stream(self._client, request))) as items:
            async for item in items:
                yield item

    async def _score(self, request: ScoreRequest) -> list[Score]:
        return await self._thread.run(score(self._client, request))
