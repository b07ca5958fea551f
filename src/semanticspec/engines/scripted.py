"""A deterministic fake model for tests: its next-token probabilities are a function you give it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from itertools import accumulate
from math import log
from typing import TYPE_CHECKING

from semanticspec.engines.base import Capabilities, EngineInfo, StateSpec, TokenChunk, position_uniform
from semanticspec.errors import EngineError
from semanticspec.records import Generation, Sampling, Score, Stop

if TYPE_CHECKING:
    from torch import Tensor

NextProbabilities = Callable[[tuple[int, ...]], Sequence[float]]


class ScriptedEngine:
    """Samples from `next_probabilities(context ids)`, a list of one probability per token.

    The state at a position is the vector of next-token probabilities there, so the hidden size equals the
    vocabulary size and pooled states can be computed by hand in a test. It has no layers but that.
    """

    def __init__(
        self,
        next_probabilities: NextProbabilities,
        vocabulary_size: int,
        max_context_tokens: int = 4096,
        states: StateSpec = StateSpec(),  # noqa: B008
    ) -> None:
        """Raises ConfigError if `states` asks for an inner layer."""
        states.check(num_layers=0)
        self._next = next_probabilities
        self._closed = False
        self.calls: list[str] = []
        self.info = EngineInfo(
            model_id="scripted",
            revision="",
            hidden_size=vocabulary_size,
            num_layers=0,
            vocabulary_size=vocabulary_size,
            max_context_tokens=max_context_tokens,
            capabilities=Capabilities(distributions=True, pair_stops=True, streaming=True, entropies=True),
            pooling=states.pooling,
        )

    async def generate(
        self,
        context_ids: Sequence[int],
        *,
        n: int = 1,
        max_tokens: int,
        stop: Stop,
        sampling: Sampling,
        seed: int = 0,
        distributions: bool = False,
        request_id: str | None = None,  # noqa: ARG002
    ) -> list[Generation]:
        self._check(context_ids, max_tokens)
        if n < 1:
            raise EngineError(f"n is {n}; ask for 1 or more samples")
        self.calls.append("generate")
        await asyncio.sleep(0)
        return [
            self._write(list(context_ids), max_tokens, stop, sampling, seed, sample, distributions)
            for sample in range(n)
        ]

    async def stream(
        self,
        context_ids: Sequence[int],
        *,
        max_tokens: int,
        stop: Stop,
        sampling: Sampling,
        seed: int = 0,
        request_id: str | None = None,  # noqa: ARG002
    ) -> AsyncGenerator[TokenChunk | Generation, None]:
        self._check(context_ids, max_tokens)
        self.calls.append("stream")
        whole = self._write(list(context_ids), max_tokens, stop, sampling, seed, 0, False)
        for token_id in whole.token_ids:
            await asyncio.sleep(0)
            yield TokenChunk((token_id,))
        yield whole

    async def score(
        self,
        context_ids: Sequence[int],
        continuations: Sequence[Sequence[int]],
        *,
        sampling: Sampling | None = None,
        seed: int = 0,
        distributions: bool = False,
        request_id: str | None = None,  # noqa: ARG002
    ) -> list[Score]:
        self.calls.append("score")
        if not continuations:
            raise EngineError("there is nothing to score; give at least one continuation")
        for continuation in continuations:
            self._check(context_ids, len(continuation))
        await asyncio.sleep(0)
        return [
            self._read(list(context_ids), list(continuation), sampling, seed, distributions)
            for continuation in continuations
        ]

    async def aclose(self) -> None:
        self._closed = True

    def _check(self, context_ids: Sequence[int], new_tokens: int) -> None:
        if self._closed:
            raise EngineError("the engine is closed; load the model again")
        if new_tokens < 1 or not context_ids:
            raise EngineError("a call needs at least one context token and one new token")
        if len(context_ids) + new_tokens > self.info.max_context_tokens:
            raise EngineError(
                f"{len(context_ids)} context tokens and {new_tokens} new ones do not fit the model's context of "
                f"{self.info.max_context_tokens}"
            )

    def _write(
        self,
        ids: list[int],
        max_tokens: int,
        stop: Stop,
        sampling: Sampling,
        seed: int,
        sample: int,
        distributions: bool,
    ) -> Generation:
        start, states, rows, logprobs = len(ids), [], [], []
        stopped = False
        while len(ids) - start < max_tokens and not stopped:
            probabilities = list(self._next(tuple(ids)))
            row = under_sampling(probabilities, sampling)
            token_id = draw(row, position_uniform(seed, len(ids), sample))
            states.append(probabilities)
            rows.append(row)
            logprobs.append(_log(probabilities[token_id]))
            stopped = stop.ends(ids[-1], token_id)
            ids.append(token_id)
        return Generation(
            tuple(logprobs),
            self._pooled(states),
            _matrix(rows) if distributions else None,
            tuple(ids[start:]),
            "stop" if stopped else "length",
        )

    def _read(
        self,
        ids: list[int],
        continuation: list[int],
        sampling: Sampling | None,
        seed: int,
        distributions: bool,
    ) -> Score:
        positions = [list(self._next(tuple(ids + continuation[:i]))) for i in range(len(continuation) + 1)]
        scored = list(zip(positions, continuation, strict=False))
        end = len(ids) + len(continuation)
        rows = [under_sampling(p, sampling) for p in positions] if sampling else []
        return Score(
            logprobs=tuple(_log(p[i]) for p, i in scored),
            pooled_state=self._pooled(positions[:-1]),
            distributions=_matrix(rows) if distributions and rows else None,
            ranks=tuple(1 + sum(other > p[i] for other in p) for p, i in scored),
            argmax_ids=tuple(p.index(max(p)) for p, _ in scored),
            entropies=tuple(-sum(other * _log(other) for other in p if other > 0) for p, _ in scored),
            next_token_id=draw(rows[-1], position_uniform(seed, end)) if rows else None,
        )

    def _pooled(self, states: list[list[float]]) -> Tensor:
        from semanticspec.engines.runtime.pooling import pooled

        return pooled(_matrix(states), self.info.pooling)


def under_sampling(probabilities: Sequence[float], sampling: Sampling) -> list[float]:
    """Next-token probabilities after temperature and nucleus truncation; one-hot when greedy."""
    if sampling.temperature == 0:
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        return [float(i == best) for i in range(len(probabilities))]
    powered = [p ** (1 / sampling.temperature) for p in probabilities]
    total = sum(powered)
    order = sorted(range(len(powered)), key=powered.__getitem__, reverse=True)
    before = [0.0, *accumulate(powered[i] / total for i in order)]
    kept = {i for i, mass in zip(order, before, strict=False) if mass < sampling.top_p}
    mass = sum(powered[i] for i in kept)
    return [powered[i] / mass if i in kept else 0.0 for i in range(len(powered))]


def draw(row: Sequence[float], uniform: float) -> int:
    """Inverse of the cumulative distribution."""
    possible = [i for i, p in enumerate(row) if p > 0]
    for i, cumulative in zip(possible, accumulate(row[i] for i in possible), strict=True):
        if uniform < cumulative:
            return i
    return possible[-1]


def _log(probability: float) -> float:
    return log(probability) if probability > 0 else float("-inf")


def _matrix(rows: Sequence[Sequence[float]]) -> Tensor:
    import torch

    return torch.tensor(rows, dtype=torch.float32)
