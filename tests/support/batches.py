"""Calls of different lengths that decode at the same time."""

from __future__ import annotations

from typing import Any

import torch

from semanticspec.engines.transformers.engine import TransformersEngine
from semanticspec.records import Generation, Sampling, Stop

SAMPLING = Sampling(temperature=0.8, top_p=0.9)


TEXT = [3, 14, 15, 9, 26, 5, 35, 8, 9, 7, 9, 3, 23, 8, 46, 26, 4, 33]


CALLS = ((6, 1), (17, 3), (3, 4), (12, 1), (17, 1), (9, 2))


def write(engine: TransformersEngine, length: int, n: int, max_tokens: int = 20) -> Any:
    """A call of its own kind of stop, so that its rows end one by one."""
    return engine.generate(
        TEXT[:length],
        n=n,
        max_tokens=max_tokens + length,
        stop=Stop(ids=frozenset({length, 2 * length})),
        sampling=SAMPLING,
        seed=length,
        distributions=True,
    )


def check_equal(left: list[Generation], right: list[Generation]) -> None:
    assert [generation.token_ids for generation in left] == [generation.token_ids for generation in right]
    for one, other in zip(left, right, strict=True):
        torch.testing.assert_close(one.pooled_state, other.pooled_state, atol=1e-4, rtol=0)
        torch.testing.assert_close(
            torch.tensor(one.logprobs), torch.tensor(other.logprobs), atol=1e-4, rtol=0
        )
        torch.testing.assert_close(one.distributions, other.distributions, atol=1e-4, rtol=0)
