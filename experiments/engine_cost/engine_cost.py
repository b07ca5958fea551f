"""Measures the overhead of the transformers engine: CPU seconds per token of `generate`, compared with bare forward
passes of the same model over the same tokens (transformers alone, dynamic cache, no sampling).

    python experiments/engine_cost/engine_cost.py                      # the bundled pair
    python experiments/engine_cost/engine_cost.py --model FOLDER --dtype bfloat16

Both are measured alternately in CPU seconds, so that other work on the machine hardly matters.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import DynamicCache

from semanticspec import demo
from semanticspec.engines.transformers.engine import TransformersEngine
from semanticspec.engines.transformers.model_runner import cache_argument
from semanticspec.records import Sampling, Stop
from semanticspec.text.vocabulary import Vocabulary

PROMPT = "Mia has 14 pens. Mia buys 23 more. How many pens does Mia have?"
SAMPLING = Sampling(temperature=0.6, top_p=0.95)


def bare_passes(context: list[int], token_ids: list[int]) -> Callable[[Any], float]:
    """Returns a function that measures the CPU seconds of prefilling a context and decoding given tokens."""

    def seconds(model: Any) -> float:
        kept = {cache_argument(type(model).forward): DynamicCache(config=model.config), "use_cache": True}
        start = time.process_time()
        model(input_ids=torch.tensor([context]), **kept, logits_to_keep=1)
        for token_id in token_ids[:-1]:
            model(input_ids=torch.tensor([[token_id]]), **kept)
        return time.process_time() - start

    return seconds


async def measure(name: str, dtype: str, num_tokens: int, trials: int) -> None:
    engine = TransformersEngine.load(name, dtype=dtype, device="cpu", cache_bytes=0)
    context = list(Vocabulary.load(name).render_prompt(PROMPT))
    pairs: list[tuple[float, float]] = []
    for trial in range(trials + 1):
        start = time.process_time()
        (generation,) = await engine.generate(
            context, max_tokens=num_tokens, stop=Stop(), sampling=SAMPLING, seed=trial
        )
        ours = time.process_time() - start
        pairs.append((ours, await engine.run_with_model(bare_passes(context, list(generation.token_ids)))))
    await engine.aclose()
    pairs = pairs[1:]  # the first trial is a warm-up
    shares = sorted(100 * (ours / bare - 1) for ours, bare in pairs)
    milliseconds = [1000 * statistics.median(column) / num_tokens for column in zip(*pairs, strict=True)]
    print(
        f"{name}: {milliseconds[0]:.2f} ms per token, bare passes {milliseconds[1]:.2f} ms; the engine adds "
        f"{statistics.median(shares):.1f} % (median of {trials}; half of them {shares[trials // 4]:.1f} to "
        f"{shares[-1 - trials // 4]:.1f} %)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", action="append", help="folder or hub name; the bundled pair if none is given"
    )
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--trials", type=int, default=24)
    options = parser.parse_args()
    for name in options.model or [str(demo.target_path()), str(demo.draft_path())]:
        asyncio.run(measure(name, options.dtype, options.tokens, options.trials))


if __name__ == "__main__":
    main()
