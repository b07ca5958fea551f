"""Measures what the engines add to the cost of the bare models. Prints ratios of one run with interleaved trials.

    python benchmarks/engine_overhead.py --target Qwen/Qwen2.5-1.5B --draft draft.gguf

A model that ends in `.gguf` runs on llama.cpp, others on transformers. The bare loops use the engine's own weights and
CPU threads, and run over the same tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import torch

from semanticspec.engines.llama_cpp.engine import LlamaCppEngine
from semanticspec.engines.llama_cpp.library import import_llama_cpp
from semanticspec.engines.llama_cpp.options import LlamaOptions
from semanticspec.engines.runtime.worker import WorkerEngine
from semanticspec.engines.transformers.engine import TransformersEngine
from semanticspec.engines.transformers.model_runner import cache_argument
from semanticspec.records import Sampling, Stop

CONTEXT = [*range(1000, 1100)]
NUM_TOKENS = 40
NUM_SCORED = 50
SAMPLING = Sampling(temperature=0.6, top_p=0.95)
Trial = Callable[[], Awaitable[float]]
"""Returns the seconds of one trial."""


async def generate(engine: WorkerEngine) -> tuple[float, list[int]]:
    """Decodes `NUM_TOKENS` tokens with distributions after a cached context; seconds after the first token."""
    options: Any = {"stop": Stop(), "sampling": SAMPLING, "seed": 1, "distributions": True, "request_id": "r"}
    await engine.generate(CONTEXT, max_tokens=1, **options)
    start = time.perf_counter()
    (generation,) = await engine.generate(CONTEXT, max_tokens=NUM_TOKENS, **options)
    return time.perf_counter() - start, list(generation.token_ids)


async def score(engine: WorkerEngine, continuation: list[int]) -> float:
    """Scores a continuation of a cached context with distributions."""
    options: Any = {"sampling": SAMPLING, "distributions": True, "request_id": "r"}
    await engine.generate(CONTEXT, max_tokens=1, stop=Stop(), sampling=SAMPLING, request_id="r")
    start = time.perf_counter()
    await engine.score(CONTEXT, [continuation], **options)
    return time.perf_counter() - start


class BareTransformers:
    """The model's own forward pass with transformers' default KV cache, on the engine's thread."""

    def __init__(self, engine: TransformersEngine) -> None:
        self._engine = engine
        self._argument = cache_argument(type(engine._runner.model).forward)

    def _prefilled(self, model: Any) -> Any:
        return model(input_ids=torch.tensor([CONTEXT]), use_cache=True).past_key_values

    async def decode(self, token_ids: list[int]) -> float:
        """Decodes after the context, with a greedy pick at each token."""

        def run(model: Any) -> float:
            cache = self._prefilled(model)
            start = time.perf_counter()
            for token_id in token_ids:
                logits = model(input_ids=torch.tensor([[token_id]]), **{self._argument: cache}).logits
                logits[0, -1].argmax().item()
            return time.perf_counter() - start

        return await self._engine.run_with_model(run)

    async def score(self, token_ids: list[int]) -> float:
        """Runs one pass over the tokens: hidden states and logits."""

        def run(model: Any) -> float:
            cache = self._prefilled(model)
            start = time.perf_counter()
            model(input_ids=torch.tensor([token_ids]), **{self._argument: cache})
            return time.perf_counter() - start

        return await self._engine.run_with_model(run)


class BareLlama:
    """llama.cpp's own `llama_decode` in a context of its own, on the engine's weights."""

    def __init__(self, engine: LlamaCppEngine) -> None:
        self._llama = llama = import_llama_cpp()
        runner = engine._runner
        params = llama.llama_context_default_params()
        params.n_ctx, params.n_threads, params.n_threads_batch = 1024, runner.threads, runner.threads
        self._context = llama.llama_init_from_model(runner._model, params)
        self._size = runner.vocabulary_size

    async def decode(self, token_ids: list[int]) -> float:
        """Decodes after the context, with a greedy pick at each token."""
        llama, context = self._llama, self._context
        llama.llama_memory_clear(llama.llama_get_memory(context), True)
        self._run(CONTEXT)
        start = time.perf_counter()
        for token_id in token_ids:
            self._run([token_id])
            np.ctypeslib.as_array(llama.llama_get_logits_ith(context, -1), (self._size,)).argmax()
        return time.perf_counter() - start

    def _run(self, token_ids: Sequence[int]) -> None:
        tokens = (self._llama.llama_token * len(token_ids))(*token_ids)
        code = self._llama.llama_decode(
            self._context, self._llama.llama_batch_get_one(tokens, len(token_ids))
        )
        assert code == 0, f"llama_decode failed with code {code}"


async def compare(name: str, ours: Trial, bare: Trial, trials: int) -> None:
    """Prints the median ratio of paired trials, and the quartiles."""
    pairs = [(await ours(), await bare()) for _ in range(trials + 1)][1:]
    ratios = sorted(one / other for one, other in pairs)
    low, middle, high = statistics.quantiles(ratios, n=4)
    own, other = (1000 * statistics.median(column) for column in zip(*pairs, strict=True))
    print(f"{name:<52} {middle:5.2f}  [{low:.2f}, {high:.2f}]  {own:8.1f} {other:8.1f} ms", flush=True)


async def measure(name: str, threads: int | None, trials: int) -> None:
    """Measures one model."""
    engine: LlamaCppEngine | TransformersEngine
    bare: BareLlama | BareTransformers
    if name.endswith(".gguf"):
        engine = LlamaCppEngine.load(name, options=LlamaOptions(threads=threads))
        bare = BareLlama(engine)
    else:
        engine = TransformersEngine.load(name, threads=threads)
        bare = BareTransformers(engine)
    _, token_ids = await generate(engine)
    fed = token_ids[:-1]  # the last token is only drawn

    async def generate_s() -> float:
        return (await generate(engine))[0]

    print(f"{name}: ratio of medians, quartiles, ours and bare")
    await compare(f"generate {NUM_TOKENS} tokens", generate_s, lambda: bare.decode(fed), trials)
    if isinstance(bare, BareTransformers):
        scored = (token_ids * NUM_SCORED)[:NUM_SCORED]
        one = token_ids[:1]
        await compare(
            f"score {NUM_SCORED} tokens", lambda: score(engine, scored), lambda: bare.score(scored), trials
        )
        await compare(
            "score one token", lambda: score(engine, one), lambda: bare.decode(one), max(trials, 20)
        )
    await engine.aclose()


def main() -> None:
    """Measures target and draft."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--target", help="transformers folder or hub name, or a .gguf file")
    parser.add_argument("--draft", help="the same")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: the engines' own)")
    parser.add_argument("--trials", type=int, default=10)
    options = parser.parse_args()
    for name in filter(None, (options.target, options.draft)):
        asyncio.run(measure(name, options.threads, options.trials))


if __name__ == "__main__":
    main()
