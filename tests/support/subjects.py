"""Engines under test, each with an oracle that computes the expected output without cache or batch."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GraniteConfig,
    Lfm2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
)

from semanticspec.engines.base import Engine, StateSpec, position_uniform
from semanticspec.engines.llama_cpp.engine import LlamaCppEngine
from semanticspec.engines.llama_cpp.options import LlamaOptions
from semanticspec.engines.runtime.prefix_cache import PrefixCache
from semanticspec.engines.runtime.worker import WorkerEngine
from semanticspec.engines.scripted import ScriptedEngine, draw, under_sampling
from semanticspec.engines.transformers.engine import TransformersEngine
from semanticspec.records import Sampling, Stop

VOCABULARY = 61
CONTEXT_TOKENS = 4096
SCRIPTED_CONTEXT_TOKENS = 512
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT_TOKENS,
    "initializer_range": 0.3,  # large, so that random weights do not give flat logits
    "bos_token_id": None,
    "eos_token_id": None,
}
_GPT2 = {
    key: value for key, value in SIZES.items() if key not in ("intermediate_size", "num_key_value_heads")
}
# Includes a sliding window, a recurrent state (the KV cache cannot be cropped), logits scaled outside the head, and
# learned position embeddings with other module names.
CONFIGS: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: LlamaConfig(**SIZES),
    "qwen2": lambda: Qwen2Config(**SIZES | {"num_hidden_layers": 3}),
    "mistral-sliding": lambda: MistralConfig(**SIZES, sliding_window=8),
    "lfm2-recurrent": lambda: Lfm2Config(
        **SIZES, layer_types=["conv", "full_attention"], block_auto_adjust_ff_dim=False
    ),
    "granite-scaled": lambda: GraniteConfig(**SIZES, logits_scaling=0.5),
    "gpt2": lambda: GPT2Config(**_GPT2),
}
# vLLM's attention on CPUs needs a head dimension of at least 32.
VLLM_CONFIG = LlamaConfig(**SIZES | {"hidden_size": 128, "initializer_range": 0.15})


@dataclass(frozen=True)
class Subject:
    """An engine and its oracle.

    Attributes:
        fresh: loads the engine once more.
        logprobs: maps ids to log-probabilities `[len(ids), vocabulary]`; row i predicts the token after i + 1 ids.
        states: maps ids to hidden states `[len(ids), hidden]` at the same positions.
    """

    name: str
    engine: Engine
    fresh: Callable[[], Engine]
    logprobs: Callable[[Sequence[int]], Tensor]
    states: Callable[[Sequence[int]], Tensor]

    def needs(self, *capabilities: str) -> None:
        """Skips the test if the engine lacks one of these capabilities."""
        for name in capabilities:
            if not getattr(self.engine.info.capabilities, name):
                pytest.skip(f"{self.name} has no {name}")

    def distribution(self, ids: Sequence[int], sampling: Sampling) -> list[float]:
        """Returns the sampling distribution after `ids`, in plain Python."""
        return under_sampling([exp(x) for x in self.logprobs(ids)[-1].tolist()], sampling)

    def continuation(
        self,
        ids: Sequence[int],
        max_tokens: int,
        sampling: Sampling,
        seed: int = 0,
        sample: int = 0,
        stop: Stop = Stop(),  # noqa: B008
    ) -> tuple[int, ...]:
        """Returns the expected continuation, sampled one token at a time."""
        whole = list(ids)
        while len(whole) < len(ids) + max_tokens:
            row = self.distribution(whole, sampling)
            whole.append(draw(row, position_uniform(seed, len(whole), sample)))
            if stop.ends(whole[-2], whole[-1]):
                break
        return tuple(whole[len(ids) :])


def load(folder: Path, **options: Any) -> TransformersEngine:
    return TransformersEngine.load(str(folder), dtype="float32", device="cpu", threads=1, **options)


def load_llama_cpp(file: Path, **options: Any) -> LlamaCppEngine:
    """Loads with a KV cache in float32 and without flash attention, so that float32 tolerances hold."""
    states = options.pop("states", StateSpec())
    chosen = LlamaOptions(dtype="float32", device="cpu", threads=1, **options)
    return LlamaCppEngine.load(str(file), options=chosen, states=states)


def load_vllm(folder: Path, **options: Any) -> Engine:
    from semanticspec.engines.vllm.engine import VllmEngine
    from semanticspec.engines.vllm.options import VllmOptions

    states = options.pop("states", StateSpec())
    arguments = {"enforce_eager": True, "block_size": 32} | options
    return VllmEngine.load(
        str(folder), options=VllmOptions(dtype="float32", arguments=arguments), states=states
    )


def transformers_subject(name: str, folder: Path) -> Subject:
    return subject_with_oracle(name, folder, lambda: load(folder))


def subject_with_oracle(name: str, folder: Path, fresh: Callable[[], Engine]) -> Subject:
    """Returns an engine with transformers as its oracle, on the same weights in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def run(ids: Sequence[int]) -> Any:
        with torch.no_grad():
            return model(torch.tensor([list(ids)]), output_hidden_states=True, use_cache=False)

    return Subject(
        name,
        fresh(),
        fresh,
        logprobs=lambda ids: run(ids).logits[0].log_softmax(-1),
        states=lambda ids: run(ids).hidden_states[-1][0],
    )


def scripted_subject() -> Subject:
    def next_probabilities(ids: tuple[int, ...]) -> list[float]:
        numbers = random.Random(repr(ids[-2:]))
        weights = [exp(2 * numbers.gauss(0, 1)) for _ in range(VOCABULARY)]
        return [weight / sum(weights) for weight in weights]

    def table(ids: Sequence[int]) -> Tensor:
        return torch.tensor([next_probabilities(tuple(ids[: end + 1])) for end in range(len(ids))])

    engine = ScriptedEngine(next_probabilities, VOCABULARY, max_context_tokens=SCRIPTED_CONTEXT_TOKENS)
    return Subject("scripted", engine, lambda: engine, logprobs=lambda ids: table(ids).log(), states=table)


def prefix_cache_of(engine: WorkerEngine) -> PrefixCache[Any]:
    """Returns an engine's prefix cache."""
    if isinstance(engine, LlamaCppEngine):
        return engine._space.prefix_cache
    assert isinstance(engine, TransformersEngine)
    return engine._prefix_cache
