"""Engine for causal language models of transformers on CPU, CUDA or MPS, with its own decode loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch

from semanticspec.engines.base import ALL_CAPABILITIES, EngineInfo, StateSpec
from semanticspec.engines.runtime.prefix_cache import PrefixCache
from semanticspec.engines.runtime.requests import GenerateRequest, ScoreRequest
from semanticspec.engines.runtime.threads import num_threads_for
from semanticspec.engines.runtime.worker import Steps, Worker, WorkerEngine
from semanticspec.engines.transformers.batching import DecodeBatch
from semanticspec.engines.transformers.cut_head import cut_head
from semanticspec.engines.transformers.generation import generate
from semanticspec.engines.transformers.kv_cache import TransformersSequence
from semanticspec.engines.transformers.loading import Loaded, load_model
from semanticspec.engines.transformers.model_runner import ModelRunner
from semanticspec.engines.transformers.packed_weights import pack_weights
from semanticspec.engines.transformers.quantized_weights import quantize_weights, use_quantized_weights
from semanticspec.engines.transformers.scoring import score
from semanticspec.records import Generation, Score

T = TypeVar("T")
DEFAULT_CACHE_BYTES = 4 * 2**30
MAX_IDLE_SEQUENCES = 64


class TransformersEngine(WorkerEngine):
    """Implements `Engine` and `ResettableCache`. Use `load` or `of` to make one."""

    def __init__(self, runner: ModelRunner, info: EngineInfo, cache_bytes: int, worker: Worker) -> None:
        super().__init__(info, worker)
        self._runner = runner
        self._batch = DecodeBatch(runner)
        self._prefix_cache = PrefixCache(
            lambda: TransformersSequence(runner.new_cache()),
            reusable=runner.reusable_cache,
            max_size=cache_bytes,
            max_sequences=MAX_IDLE_SEQUENCES,
        )

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
        head_tokens: str | None = None,
        weights: str | None = None,
        adapter: str | None = None,
        states: StateSpec = StateSpec(),  # noqa: B008
    ) -> TransformersEngine:
        """Loads a model.

        Args:
            model: hub name, local folder, or `.gguf` file (dequantized on load).
            revision: hub branch, tag or commit.
            dtype: auto (as in the checkpoint), float32, bfloat16 or float16.
            device: auto (CUDA, else MPS, else CPU), cpu, cuda, cuda:N or mps.
            cache_bytes: size limit of the prefix cache.
            threads: CPU threads per operation; None = 1 for small models, torch's default for others.
            head_tokens: file with the ids of the tokens that the head keeps, see `runtime.head_tokens`; None = all.
            weights: int8 or int4, for models in bfloat16 on CPUs, see `quantized_weights`; None = not quantized.
            adapter: LoRA adapter that is merged into the weights: folder, or owner/name[@revision] on the hub.
            states: which hidden states to return.

        Raises:
            ConfigError: The dtype, device or form of weights is unknown or unavailable, the model has no such layer, or
                `head_tokens` does not fit it.
            ModelError: Model or adapter do not exist or do not fit; or the model is not a causal LM, has broken files,
                or its head cannot be cut.
            EngineError: A package is missing.
        """
        loaded = load_model(model, revision, dtype, device, adapter)
        return cls.of(
            loaded,
            model,
            cache_bytes=cache_bytes,
            threads=threads,
            head_tokens=head_tokens,
            weights=weights,
            states=states,
        )

    @classmethod
    def of(
        cls,
        loaded: Loaded,
        name: str,
        *,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        threads: int | None = None,
        head_tokens: str | None = None,
        weights: str | None = None,
        states: StateSpec = StateSpec(),  # noqa: B008
    ) -> TransformersEngine:
        """Makes an engine of a loaded model, whose layers it may replace (`pack_weights`). Arguments: see `load`."""
        worker = Worker(num_threads_for(loaded.model.num_parameters(), threads, torch.get_num_threads()))

        def prepare() -> ModelRunner:  # on more threads, this takes seconds where another process uses a core
            if head_tokens is not None:
                cut_head(loaded.model, head_tokens)
            if weights is not None:
                quantize_weights(loaded.model, weights)
            pack_weights(loaded.model)
            runner = ModelRunner(loaded.model, states)
            use_quantized_weights(loaded.model)
            return runner

        runner = worker.run_at_start(prepare)
        info = EngineInfo(
            model_id=name,
            revision=loaded.revision,
            hidden_size=runner.hidden_size,
            num_layers=runner.num_layers,
            vocabulary_size=runner.vocabulary_size,
            max_context_tokens=loaded.max_context_tokens,
            norm_state=states.norm_state,
            capabilities=replace(ALL_CAPABILITIES, prefix_cache=runner.reusable_cache),
            layer=states.layer,
            pooling=states.pooling,
            dtype=str(loaded.model.dtype).removeprefix("torch."),
            device=str(loaded.model.device),
            adapter=loaded.adapter,
        )
        return cls(runner, info, cache_bytes, worker)

    async def run_with_model(self, function: Callable[[Any], T]) -> T:
        """Runs `function(model)` with the transformers model on the engine's thread, in inference mode.

        For what the engine itself does not offer, such as transformers' own `generate` as a baseline. The function
        uses the engine's weights and CPU threads. Other calls wait for it, and cancellation does not interrupt it.

        Raises:
            EngineError: The engine is closed, or the function failed.
        """

        def steps() -> Steps[T]:
            yield ()  # a call that is cancelled before its turn never runs
            return function(self._runner.model)

        self._check_open()
        return await self._worker.run(steps())

    def load_beside(self, model: str) -> Any:
        """Loads another transformers model with the same device, dtype and optimizations, for `run_with_model`.

        Raises:
            ModelError: The model does not exist, is not a causal LM, or has broken files.
        """
        dtype = str(self._runner.model.dtype).removeprefix("torch.")
        loaded = load_model(model, None, dtype, str(self._runner.device)).model
        pack_weights(loaded)
        return loaded

    def _generate_steps(self, request: GenerateRequest) -> Steps[list[Generation]]:
        return generate(self._runner, self._prefix_cache, self._batch, request)

    def _score_steps(self, request: ScoreRequest) -> Steps[list[Score]]:
        return score(self._runner, self._prefix_cache, request)

    def _clear_cache(self) -> None:
        self._prefix_cache.clear()

    def _free(self) -> None:
        self._prefix_cache.clear()
        del self._runner, self._batch
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
