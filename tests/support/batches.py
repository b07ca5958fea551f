"""Concurrent calls of different lengths."""

from __future__ import annotations

import torch

from semanticspec.engines.runtime.worker import WorkerEngine
from semanticspec.records import Generation, Sampling, Stop
from tests.support.distributions import dense

VOCABULARY_SIZE = 61
SAMPLING = Sampling(temperature=0.8, top_p=0.9)
TEXT = [3, 14, 15, 9, 26, 5, 35, 8, 9, 7, 9, 3, 23, 8, 46, 26, 4, 33]
CALLS = ((6, 1), (17, 3), (3, 4), (12, 1), (17, 1), (9, 2))
"""Context lengths and numbers of samples. Longer and shorter contexts join a batch, and end at different times."""


async def generate(engine: WorkerEngine, length: int, n: int, max_tokens: int = 20) -> list[Generation]:
    """Generates with a stop condition that depends on `length`, so that rows end one by one."""
    return await engine.generate(
        TEXT[:length],
        n=n,
        max_tokens=max_tokens + length,
        stop=Stop(ids=frozenset({length, 2 * length})),
        sampling=SAMPLING,
        seed=length,
        distributions=True,
    )


def check_equal(left: list[Generation], right: list[Generation]) -> None:
    """Compares generations: tokens exactly, numbers within 1e-4."""
    assert [generation.token_ids for generation in left] == [generation.token_ids for generation in right]
    for one, other in zip(left, right, strict=True):
        torch.testing.assert_close(one.pooled_state, other.pooled_state, atol=1e-4, rtol=0)
        torch.testing.assert_close(
            torch.tensor(one.logprobs), torch.tensor(other.logprobs), atol=1e-4, rtol=0
        )
        rows = [dense(generation.distributions, VOCABULARY_SIZE) for generation in (one, other)]
        torch.testing.assert_close(*rows, atol=1e-4, rtol=0)
