"""Engine over Hugging Face transformers: any causal LM, on CPU, CUDA or MPS, with its own decode loop.

Where things are: finding and loading a model in `transformers_loading`, the model as a function in
`transformers_network`, kept caches in `transformers_cache`, reading and writing in `transformers_reading` and
`transformers_writing`. What other engines share is in `cache_pool`, `sampling`, `scoring`, `writing` and `worker`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from typing import Any, TypeVar

import torch

from semanticspec.config import check_sampling
from semanticspec.engines.base import Capabilities, EngineInfo, StateSpec, TokenChunk
from semanticspec.engines.cache_pool import CachePool
from semanticspec.engines.scoring import ScoreRequest
from semanticspec.engines.transformers_batch import RowBatch
from semanticspec.engines.transformers_cache import CachedSequence
from semanticspec.engines.transformers_loading import load_model
from semanticspec.engines.transformers_network import Network
from semanticspec.engines.transformers_reading import score
from semanticspec.engines.transformers_writing import write
from semanticspec.engines.worker import Worker
from semanticspec.engines.writing import WriteRequest
from semanticspec.errors import EngineError
from semanticspec.records import Generation, Sampling, Score, Stop

T = TypeVar("T")
DEFAULT_CACHE_BYTES = 4 * 2**30
MAX_CACHED_SEQUENCES = 64
SMALL_MODEL_PARAMETERS = 10_000_000
"""Below this, sharing one operation among CPU threads costs more than it saves: see docs/experiments.md."""


class TransformersEngine:
    """Implements `semanticspec.engines.base.Engine`.

    Pooled states are taken after the final norm, as transformers' `hidden_states[-1]`, unless `load` is asked for
    those of another layer.
    """

    def __init__(self, network: Network, info: EngineInfo, cache_bytes: int, threads: int) -> None:
        """Use `load`."""
        self._info = info
        self._network = network
        self._pool = CachePool(
            lambda: CachedSequence(network.new_cache()),
            reusable=network.reusable,
            max_size=cache_bytes,
            max_sequences=MAX_CACHED_SEQUENCES,
        )
        self._batch = RowBatch(network)
        self._worker = Worker(lambda: torch.set_num_threads(threads))

    @classmethod
    def load(
        cls,
        model: str,
        *,
        revision: str | None = None,
        dtype: str = "auto",
        device: str = "auto",
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        threads: int | None = None,
        states: StateSpec = StateSpec(),  # noqa: B008
    ) -> TransformersEngine:
        """Loads a model.

        Args:
            model: hub name, local folder, or a `.gguf` file (dequantized on load).
            revision: hub branch, tag or commit.
            dtype: auto (the checkpoint's own), float32, bfloat16 or float16.
            device: auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:N or mps.
            cache_bytes: what kept key/value caches may take while no call uses them.
            threads: CPU threads of one operation; None = one for small models, torch's own number for others.
            states: which states its readings hold.

        Raises:
            ConfigError: the dtype or device is unknown or not there, or the model has no such layer.
            ModelError: there is no such model, it is no causal LM, or its files are broken.
            EngineError: a package is missing.
        """
        loaded = load_model(model, revision, dtype, device)
        network = Network(loaded.model, states)
        info = EngineInfo(
            model_id=model,
            revision=loaded.revision,
            hidden_size=network.hidden_size,
            num_layers=network.num_layers,
            vocabulary_size=network.vocabulary_size,
            max_context_tokens=loaded.max_context_tokens,
            norm_state=states.norm_state,
            capabilities=Capabilities(distributions=True, pair_stops=True, streaming=True, entropies=True),
            layer=states.layer,
            pooling=states.pooling,
        )
        # Asked for in any case: torch then fixes the number for this thread, whatever the worker sets for itself.
        usual = torch.get_num_threads()
        small = loaded.model.num_parameters() < SMALL_MODEL_PARAMETERS
        return cls(network, info, cache_bytes, threads or (1 if small else usual))

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
        return await self._worker.run(write(self._network, self._pool, self._batch, request))

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
        steps = write(self._network, self._pool, self._batch, request)
        async with contextlib.aclosing(self._worker.stream(steps)) as items:
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
        if not continuations or not all(continuations):
            raise EngineError("nothing to score: expected at least one continuation, and none of them empty")
        context = self._checked(context_ids, max(map(len, continuations)), sampling)
        rows = [list(continuation) for continuation in continuations]
        for row in rows:
            self._check_ids(row)
        request = ScoreRequest(context, rows, sampling, seed, distributions, request_id)
        return await self._worker.run(score(self._network, self._pool, request))

    async def run_with_model(self, function: Callable[[Any], T]) -> T:
        """Runs `function(model)` with the causal LM of transformers, on the engine's thread and in its turn.

        What runs there has as many CPU threads as the engine's own calls and shares its weights: for what the
        engine cannot do itself, such as transformers' own `generate` as a baseline. It runs in inference mode and
        in one piece: other calls wait for it, and cancelling this does not interrupt it.

        Raises:
            EngineError: the engine is closed, or the function failed.
        """

        def steps() -> Generator[tuple[int, ...], None, T]:
            yield ()  # cancelled before its turn, it never runs
            return function(self._network.model)

        return await self._worker.run(steps())

    async def forget(self) -> None:
        """See `Forgetting.forget`."""

        def clear() -> Generator[tuple[int, ...], None, None]:
            self._pool.clear()
            yield ()

        await self._worker.run(clear())

    async def aclose(self) -> None:
        """Ends calls under way with an EngineError and frees the model."""
        await asyncio.shield(self._worker.aclose(self._free))

    def _free(self) -> None:
        self._pool.clear()
        del self._network, self._batch
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _checked(self, context_ids: Sequence[int], new_tokens: int, sampling: Sampling | None) -> list[int]:
        """The context as a list of its own. Raises EngineError for what cannot be run."""
        self._worker.check_open()
        context, limit = list(context_ids), self._info.max_context_tokens
        if not context:
            raise EngineError("the context is empty; expected at least one token")
        if new_tokens < 1:
            raise EngineError(f"max_tokens is {new_tokens}; expected 1 or more")
        if len(context) + new_tokens > limit:
            raise EngineError(
                f"{len(context)} context tokens and {new_tokens} new ones do not fit the model's context of "
                f"{limit} tokens"
            )
        self._check_ids(context)
        if sampling is not None:
            check_sampling(sampling)
        return context

    def _check_ids(self, token_ids: list[int]) -> None:
        """Raises EngineError for ids without a row in the embedding: on a GPU they would end the process."""
        if min(token_ids) < 0 or max(token_ids) >= self._info.vocabulary_size:
            raise EngineError(
                f"there are ids outside the model's vocabulary of {self._info.vocabulary_size}; "
                "is the tokenizer the model's own?"
            )
