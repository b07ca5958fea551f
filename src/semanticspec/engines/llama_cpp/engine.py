"""Engine over llama.cpp, through the low-level bindings of llama-cpp-python: GGUF files, on CPUs and GPUs.

Where things are: finding and loading a file in `llama_cpp_loading`, the model and its buffer of keys and values in
`llama_cpp_context`, what is kept there and who may take how much in `llama_cpp_cache`, passes that calls share in
`llama_cpp_batch`, and reading and writing in `llama_cpp_calls`. What it shares with the transformers engine is in
`cache_pool`, `sampling`, `scoring`, `writing`, `worker` and `worker_engine`.
"""

from __future__ import annotations

import torch

from semanticspec.engines.base import EngineInfo, StateSpec
from semanticspec.engines.llama_cpp.batching import SharedBatch
from semanticspec.engines.llama_cpp.calls import Parts, score, write
from semanticspec.engines.llama_cpp.context import LlamaContext
from semanticspec.engines.llama_cpp.kv_cache import Room
from semanticspec.engines.llama_cpp.loading import load_context
from semanticspec.engines.llama_cpp.options import LlamaOptions
from semanticspec.engines.runtime.engine import WorkerEngine, engine_info
from semanticspec.engines.runtime.generation import WriteRequest
from semanticspec.engines.runtime.scoring import ScoreRequest
from semanticspec.engines.runtime.worker import Steps, Worker
from semanticspec.records import Generation, Score


class LlamaCppEngine(WorkerEngine):
    """Implements `semanticspec.engines.base.Engine`. States are the last layer's, after the final norm."""

    def __init__(self, context: LlamaContext, info: EngineInfo) -> None:
        """Use `load`."""
        super().__init__(info, Worker(lambda: torch.set_num_threads(context.threads)))
        room = Room(context)
        self._parts = Parts(context, room, SharedBatch(context, room), info.pooling)

    @classmethod
    def load(
        cls,
        model: str,
        *,
        options: LlamaOptions = LlamaOptions(),  # noqa: B008
        states: StateSpec = StateSpec(),  # noqa: B008
    ) -> LlamaCppEngine:
        """Loads a GGUF file.

        Args:
            model: path of the file.
            states: which states its readings hold; of the last layer only.

        Raises:
            ConfigError: options do not fit the model or this build of llama.cpp, or another layer is asked for.
            ModelError: there is no such file, or llama.cpp cannot run it.
            EngineError: llama-cpp-python is missing, or there is not enough memory for keys and values.
        """
        context, revision = load_context(model, options, states)
        info = engine_info(model, revision, context, context.context_tokens, states)
        torch.get_num_threads()  # torch then fixes the number for this thread, whatever the worker sets for itself
        return cls(context, info)

    def _write(self, request: WriteRequest) -> Steps[list[Generation]]:
        return write(self._parts, request)

    def _score(self, request: ScoreRequest) -> Steps[list[Score]]:
        return score(self._parts, request)

    def _clear(self) -> None:
        self._parts.room.pool.clear()

    def _free(self) -> None:
        self._parts.context.close()
