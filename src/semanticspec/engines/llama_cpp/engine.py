"""Engine for GGUF files on CPUs and GPUs, over the low-level bindings of llama-cpp-python."""

from __future__ import annotations

from semanticspec.engines.base import ALL_CAPABILITIES, EngineInfo, StateSpec
from semanticspec.engines.llama_cpp.batching import SharedBatch
from semanticspec.engines.llama_cpp.generation import generate
from semanticspec.engines.llama_cpp.kv_cache import KVCacheSpace
from semanticspec.engines.llama_cpp.loading import load_runner
from semanticspec.engines.llama_cpp.model_runner import ModelRunner
from semanticspec.engines.llama_cpp.options import LlamaOptions
from semanticspec.engines.llama_cpp.scoring import score
from semanticspec.engines.runtime.requests import GenerateRequest, ScoreRequest
from semanticspec.engines.runtime.worker import Steps, Worker, WorkerEngine
from semanticspec.records import Generation, Score
from semanticspec.text.gguf_files import ADAPTER_KEY


class LlamaCppEngine(WorkerEngine):
    """Implements `Engine` and `ResettableCache`. Use `load` to make one."""

    def __init__(self, runner: ModelRunner, info: EngineInfo) -> None:
        super().__init__(info, Worker(runner.threads))
        self._runner = runner
        self._space = KVCacheSpace(runner)
        self._batch = SharedBatch(runner, self._space)

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
            options: see `LlamaOptions`.
            states: which hidden states to return; only the last layer's are available.

        Raises:
            ConfigError: The options do not fit the model or this build of llama.cpp, or another layer is selected.
            ModelError: The file does not exist, or llama.cpp cannot run it.
            EngineError: llama-cpp-python is not installed, or the KV cache does not fit in memory.
        """
        runner, revision = load_runner(model, options, states)
        info = EngineInfo(
            model_id=model,
            revision=revision,
            hidden_size=runner.hidden_size,
            num_layers=runner.num_layers,
            vocabulary_size=runner.vocabulary_size,
            max_context_tokens=runner.context_tokens,
            norm_state=states.norm_state,
            capabilities=ALL_CAPABILITIES,
            layer=states.layer,
            pooling=states.pooling,
            adapter=runner.metadata(ADAPTER_KEY),
        )
        return cls(runner, info)

    def _generate_steps(self, request: GenerateRequest) -> Steps[list[Generation]]:
        return generate(self._batch, self._space, self.info.pooling, request)

    def _score_steps(self, request: ScoreRequest) -> Steps[list[Score]]:
        return score(self._batch, self._space, self.info.pooling, request)

    def _clear_cache(self) -> None:
        self._space.prefix_cache.clear()

    def _free(self) -> None:
        self._runner.close()
