"""Engine over Hugging Face transformers: any causal LM, on CPU, CUDA or MPS, with its own decode loop.

Where things are: finding and loading a model in `transformers_loading`, the model as a function in
`transformers_network`, kept caches in `transformers_cache`, reading and writing in `transformers_reading` and
`transformers_writing`. What other engines share is in `cache_pool`, `sampling`, `scoring`, `writing`,
`worker` and `worker_engine`.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

import torch

from semanticspec.engines.base import EngineInfo, StateSpec
from semanticspec.engines.runtime.engine import WorkerEngine, engine_info
from semanticspec.engines.runtime.generation import WriteRequest
from semanticspec.engines.runtime.prefix_cache import CachePool
from semanticspec.engines.runtime.scoring import ScoreRequest
from semanticspec.engines.runtime.worker import Steps, Worker, threads_for
from semanticspec.engines.transformers.batching import RowBatch
from semanticspec.engines.transformers.generation import write
from semanticspec.engines.transformers.kv_cache import CachedSequence
from semanticspec.engines.transformers.loading import Loaded, load_model
from semanticspec.engines.transformers.network import Network
from semanticspec.engines.transformers.packed_weights import pack_weights
from semanticspec.engines.transformers.scoring import score
from semanticspec.records import Generation, Score

T = TypeVar("T")
DEFAULT_CACHE_BYTES = 4 * 2**30
MAX_CACHED_SEQUENCES = 64


class TransformersEngine(WorkerEngine):
    """Implements `semanticspec.engines.base.Engine`.

    Pooled states are taken after the final norm, as transformers' `hidden_states[-1]`, unless `load` is asked for
    those of another layer.
    """

    def __init__(self, network: Network, info: EngineInfo, cache_bytes: int, threads: int) -> None:
        """Use `load`."""
        super().__init__(info, Worker(lambda: torch.set_num_threads(threads)))
        self._network = network
        self._pool = CachePool(
            lambda: CachedSequence(network.new_cache()),
            reusable=network.reusable,
            max_size=cache_bytes,
            max_sequences=MAX_CACHED_SEQUENCES,
        )
        self._batch = RowBatch(network)

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
        return cls.of(loaded, model, cache_bytes=cache_bytes, threads=threads, states=states)

    @classmethod
    def of(
        cls,
        loaded: Loaded,
        name: str,
        *,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        threads: int | None = None,
        states: StateSpec = StateSpec(),  # noqa: B008
    ) -> TransformersEngine:
        """The engine of a model that is there already, whose layers it may replace; see `load` and `pack_weights`."""
        pack_weights(loaded.model)
        network = Network(loaded.model, states)
        info = engine_info(name, loaded.revision, network, loaded.max_context_tokens, states)
        # Asked for in any case: torch then fixes the number for this thread, whatever the worker sets for itself.
        usual = torch.get_num_threads()
        return cls(network, info, cache_bytes, threads_for(loaded.model.num_parameters(), threads, usual))

    def _write(self, request: WriteRequest) -> Steps[list[Generation]]:
        return write(self._network, self._pool, self._batch, request)

    def _score(self, request: ScoreRequest) -> Steps[list[Score]]:
        return score(self._network, self._pool, request)

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

    def load_beside(self, model: str) -> Any:
        """Another causal LM of transformers on the same device, in the same dtype and as fast, for `run_with_model`.

        Raises:
            ModelError: there is no such model, it is no causal LM, or its files are broken.
        """
        dtype = str(self._network.model.dtype).removeprefix("torch.")
        loaded = load_model(model, None, dtype, str(self._network.device)).model
        pack_weights(loaded)
        return loaded

    def _clear(self) -> None:
        self._pool.clear()

    def _free(self) -> None:
        self._pool.clear()
        del self._network, self._batch
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
