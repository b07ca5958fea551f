"""A deterministic fake model for tests. A function gives its next-token probabilities."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from itertools import accumulate
from math import log
from typing import TYPE_CHECKING

from semanticspec.engines.base import ALL_CAPABILITIES, EngineInfo, StateSpec, TokenChunk, position_uniform
from semanticspec.engines.runtime.engine import BaseEngine
from semanticspec.engines.runtime.requests import GenerateRequest, ScoreRequest
from semanticspec.records import Generation, Sampling, Score

if TYPE_CHECKING:
    from torch import Tensor

    from semanticspec.distributions import Distributions

NextProbabilities = Callable[[tuple[int, ...]], Sequence[float]]


class ScriptedEngine(BaseEngine):
    """Implements `Engine` with `next_probabilities(context_ids)`, which returns one probability per token.

    The hidden state at a position is the vector of next-token probabilities there, so that tests can compute pooled
    states by hand. There are no inner layers.

    Attributes:
        calls: names of the methods called so far.
    """

    def __init__(
        self,
        next_probabilities: NextProbabilities,
        vocabulary_size: int,
        max_context_tokens: int = 4096,
        states: StateSpec = StateSpec(),  # noqa: B008
    ) -> None:
        """Raises ConfigError if `states` selects an inner layer."""
        states.check(num_layers=0)
        super().__init__(
            EngineInfo(
                model_id="scripted",
                revision="",
                hidden_size=vocabulary_size,
                num_layers=0,
                vocabulary_size=vocabulary_size,
                max_context_tokens=max_context_tokens,
                capabilities=ALL_CAPABILITIES,
                pooling=states.pooling,
            )
        )
        self._next = next_probabilities
        self.calls: list[str] = []

    async def aclose(self) -> None:
        self.closed = True

    async def _generate(self, request: GenerateRequest) -> list[Generation]:
        self.calls.append("generate")
        await asyncio.sleep(0)
        return [self._sample(request, sample) for sample in range(request.n)]

    async def _stream(self, request: GenerateRequest) -> AsyncGenerator[TokenChunk | Generation, None]:
        self.calls.append("stream")
        whole = self._sample(request, 0)
        for token_id in whole.token_ids:
            await asyncio.sleep(0)
            yield TokenChunk((token_id,))
        yield whole

    async def _score(self, request: ScoreRequest) -> list[Score]:
        self.calls.append("score")
        await asyncio.sleep(0)
        return [self._score_one(request, continuation) for continuation in request.continuations]

    def _sample(self, request: GenerateRequest, sample: int) -> Generation:
        ids, start = list(request.context_ids), len(request.context_ids)
        states, rows, logprobs = [], [], []
        stopped = False
        while len(ids) - start < request.max_tokens and not stopped:
            probabilities = list(self._next(tuple(ids)))
            row = under_sampling(probabilities, request.sampling)
            token_id = draw(row, position_uniform(request.seed, len(ids), sample))
            states.append(probabilities)
            rows.append(row)
            logprobs.append(_log(probabilities[token_id]))
            stopped = request.stop.ends(ids[-1], token_id) or request.stop.is_unlikely(sum(logprobs))
            ids.append(token_id)
        return Generation(
            tuple(logprobs),
            self._pooled(states),
            _distributions(rows) if request.distributions else None,
            tuple(ids[start:]),
            "stop" if stopped else "length",
        )

    def _score_one(self, request: ScoreRequest, continuation: list[int]) -> Score:
        ids = request.context_ids + continuation
        lengths = range(len(request.context_ids), len(ids) + 1)
        positions = [list(self._next(tuple(ids[:length]))) for length in lengths]
        scored = list(zip(positions, continuation, strict=False))
        rows = [under_sampling(p, request.sampling) for p in positions] if request.sampling else []
        return Score(
            logprobs=tuple(_log(p[i]) for p, i in scored),
            pooled_state=self._pooled(positions[:-1]),
            distributions=_distributions(rows) if request.distributions and rows else None,
            ranks=tuple(1 + sum(other > p[i] for other in p) for p, i in scored),
            argmax_ids=tuple(p.index(max(p)) for p, _ in scored),
            entropies=tuple(-sum(other * _log(other) for other in p if other > 0) for p, _ in scored),
            next_token_id=draw(rows[-1], position_uniform(request.seed, len(ids))) if rows else None,
            margins=tuple(_log(best) - _log(second) for best, second in map(_two_largest, positions[:-1])),
        )

    def _pooled(self, states: list[list[float]]) -> Tensor:
        from semanticspec.engines.runtime.pooling import pooled

        return pooled(_matrix(states), self.info.pooling)


def under_sampling(probabilities: Sequence[float], sampling: Sampling) -> list[float]:
    """Returns next-token probabilities after temperature and top-p; one-hot when greedy."""
    if sampling.temperature == 0:
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        return [float(i == best) for i in range(len(probabilities))]
    powered = [p ** (1 / sampling.temperature) for p in probabilities]
    total = sum(powered)
    order = sorted(range(len(powered)), key=powered.__getitem__, reverse=True)
    before = [0.0, *accumulate(powered[i] / total for i in order)]
    nucleus = {i for i, mass in zip(order, before, strict=False) if mass < sampling.top_p}
    mass = sum(powered[i] for i in nucleus)
    return [powered[i] / mass if i in nucleus else 0.0 for i in range(len(powered))]


def draw(probabilities: Sequence[float], uniform: float) -> int:
    """Draws a token by inverting the cumulative distribution."""
    possible = [i for i, p in enumerate(probabilities) if p > 0]
    for i, cumulative in zip(possible, accumulate(probabilities[i] for i in possible), strict=True):
        if uniform < cumulative:
            return i
    return possible[-1]


def _two_largest(probabilities: Sequence[float]) -> tuple[float, float]:
    best, second = sorted(probabilities, reverse=True)[:2]
    return best, second


def _log(probability: float) -> float:
    return log(probability) if probability > 0 else float("-inf")


def _distributions(rows: Sequence[Sequence[float]]) -> Distributions:
    from semanticspec.distributions import Distribution

    return tuple(map(Distribution.of_dense, rows))


def _matrix(rows: Sequence[Sequence[float]]) -> Tensor:
    import torch

    return torch.tensor(rows, dtype=torch.float32)
