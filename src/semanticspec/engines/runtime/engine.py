"""Base class of all engines: checks arguments and capabilities, and turns calls into requests."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from semanticspec.engines.base import EngineInfo, TokenChunk
from semanticspec.engines.runtime.requests import (
    GenerateRequest,
    ScoreRequest,
    check_context,
    check_continuations,
)
from semanticspec.errors import EngineError
from semanticspec.records import Generation, Sampling, Score, Stop


class BaseEngine(ABC):
    """Implements the public methods of `semanticspec.engines.base.Engine`. Subclasses run the checked requests.

    Attributes:
        closed: set by `aclose`.
    """

    def __init__(self, info: EngineInfo) -> None:
        self.info = info
        self.closed = False

    @abstractmethod
    async def _generate(self, request: GenerateRequest) -> list[Generation]:
        """Runs a `generate` call."""

    @abstractmethod
    def _stream(self, request: GenerateRequest) -> AsyncGenerator[TokenChunk | Generation, None]:
        """Runs a `stream` call, with n = 1."""

    @abstractmethod
    async def _score(self, request: ScoreRequest) -> list[Score]:
        """Runs a `score` call."""

    @abstractmethod
    async def aclose(self) -> None:
        """Frees the model. Running and later calls raise EngineError."""

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
        self._check_open()
        if n < 1:
            raise EngineError(f"n is {n}; expected 1 or more continuations")
        self._check_capabilities(stop, distributions)
        context = check_context(self.info, context_ids, max_tokens, sampling)
        return await self._generate(
            GenerateRequest(context, n, max_tokens, stop, sampling, seed, distributions, request_id)
        )

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
        self._check_open()
        self._check_capabilities(stop, distributions=False)
        context = check_context(self.info, context_ids, max_tokens, sampling)
        request = GenerateRequest(context, 1, max_tokens, stop, sampling, seed, False, request_id)
        async with aclosing(self._stream(request)) as items:
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
        signals: bool = False,
        request_id: str | None = None,
    ) -> list[Score]:
        """See `Engine.score`."""
        self._check_open()
        self._check_capabilities(Stop(), distributions)
        rows = check_continuations(self.info, continuations)
        context = check_context(self.info, context_ids, max(map(len, rows)), sampling)
        request = ScoreRequest(context, rows, sampling, seed, distributions, request_id, signals)
        return await self._score(request)

    def _check_open(self) -> None:
        if self.closed:
            raise EngineError("the engine is closed; load the model again")

    def _check_capabilities(self, stop: Stop, distributions: bool) -> None:
        can = self.info.capabilities
        if distributions and not can.distributions:
            raise EngineError("this engine returns no distributions; use the engine transformers")
        if stop.pair_second and not can.pair_stops:
            raise EngineError(
                "this engine cannot stop at a blank line that is two tokens; use the engine transformers"
            )
