"""What engines that run their model on a thread of their own have in common: everything but the model."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Generator, Sequence
from typing import Protocol

from semanticspec.engines.base import Capabilities, EngineInfo, StateSpec, TokenChunk
from semanticspec.engines.runtime.checks import checked_context, checked_continuations
from semanticspec.engines.runtime.generation import WriteRequest
from semanticspec.engines.runtime.scoring import ScoreRequest
from semanticspec.engines.runtime.worker import Steps, Worker
from semanticspec.errors import EngineError
from semanticspec.records import Generation, Sampling, Score, Stop


class Sized(Protocol):
    """A model's sizes."""

    @property
    def hidden_size(self) -> int: ...

    @property
    def num_layers(self) -> int: ...

    @property
    def vocabulary_size(self) -> int: ...


def engine_info(
    model: str, revision: str, sizes: Sized, max_context_tokens: int, states: StateSpec
) -> EngineInfo:
    """What a `WorkerEngine` is; what it can do beyond the minimum is what sampling and scoring here can."""
    return EngineInfo(
        model_id=model,
        revision=revision,
        hidden_size=sizes.hidden_size,
        num_layers=sizes.num_layers,
        vocabulary_size=sizes.vocabulary_size,
        max_context_tokens=max_context_tokens,
        norm_state=states.norm_state,
        capabilities=Capabilities(distributions=True, pair_stops=True, streaming=True, entropies=True),
        layer=states.layer,
        pooling=states.pooling,
    )


class WorkerEngine(ABC):
    """Implements `semanticspec.engines.base.Engine` and `Forgetting`, given how a model reads and writes."""

    def __init__(self, info: EngineInfo, worker: Worker) -> None:
        self._info = info
        self._worker = worker

    @abstractmethod
    def _write(self, request: WriteRequest) -> Steps[list[Generation]]:
        """The steps of a call to `generate` or `stream`."""

    @abstractmethod
    def _score(self, request: ScoreRequest) -> Steps[list[Score]]:
        """The steps of a call to `score`."""

    @abstractmethod
    def _clear(self) -> None:
        """Drops what is kept of earlier calls."""

    @abstractmethod
    def _free(self) -> None:
        """Frees the model. No call is under way any more."""

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
        context = self._checked(context_ids, max_tokens, sampling)
        if n < 1:
            raise EngineError(f"n is {n}; expected 1 or more continuations")
        request = WriteRequest(context, n, max_tokens, stop, sampling, seed, distributions, request_id)
        return await self._worker.run(self._write(request))

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
        """See `Engine.stream`. The first token comes at once, then what was written in about 20 ms each."""
        context = self._checked(context_ids, max_tokens, sampling)
        request = WriteRequest(context, 1, max_tokens, stop, sampling, seed, False, request_id)
        async with contextlib.aclosing(self._worker.stream(self._write(request))) as items:
            async for item in items:
                if isinstance(item, tuple):
                    yield TokenChunk(item)
                else:
                    yield item[0]

    async def score(
        self,
        context_ids: Sequence[int],
        continuations: Sequence[Sequence[int]],
        *,
        sampling: Sampling | None = None,
        seed: int = 0,
        distributions: bool = False,
        request_id: str | None = None,
    ) -> list[Score]:
        """See `Engine.score`."""
        rows = checked_continuations(self._info, continuations)
        context = self._checked(context_ids, max(map(len, rows)), sampling)
        request = ScoreRequest(context, rows, sampling, seed, distributions, request_id)
        return await self._worker.run(self._score(request))

    async def forget(self) -> None:
        """See `Forgetting.forget`."""

        def clear() -> Generator[tuple[int, ...], None, None]:
            self._clear()
            yield ()

        await self._worker.run(clear())

    async def aclose(self) -> None:
        """Ends calls under way with an EngineError and frees the model."""
        await asyncio.shield(self._worker.aclose(self._free))

    def _checked(self, context_ids: Sequence[int], new_tokens: int, sampling: Sampling | None) -> list[int]:
        self._worker.check_open()
        return checked_context(self._info, context_ids, new_tokens, sampling)
