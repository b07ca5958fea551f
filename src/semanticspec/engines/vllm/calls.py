"""Calls to vLLM: what a generation or a score asks for, and what its answer says."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.exceptions import EngineDeadError

from semanticspec.engines.base import Pooling, TokenChunk, derived_seed
from semanticspec.engines.runtime.generation import WriteRequest
from semanticspec.engines.vllm.connector import PARAMETERS
from semanticspec.engines.vllm.mailbox import Mailbox
from semanticspec.errors import EngineError
from semanticspec.records import GREEDY, Generation, Sampling, Score, Stop

_STATE_PATIENCE_S = 60.0
"""A state comes one step of the engine after its request is finished."""


@dataclass(slots=True)
class Answer:
    """What came of one request.

    Attributes:
        logprobs: of the new tokens, as `Reading.logprobs`.
        prompt_rows: of every prompt token that was read, its own and the favourite's log-probability and rank, by id.
        num_cached: prompt tokens that were not read again; rows before that say nothing.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: str
    prompt_rows: Sequence[Any]
    num_cached: int
    state: Tensor


class Caller:
    """Asks one vLLM engine. Lives on the engine's event loop.

    Attributes:
        weight: of the final norm, `[hidden]`, float32.
    """

    def __init__(self, llm: Any, mailbox: Mailbox, weight: Tensor, pooling: Pooling) -> None:
        self._llm, self._mailbox, self._weight, self._pooling = llm, mailbox, weight, pooling
        self._numbers = itertools.count()

    async def forget(self) -> None:
        """Empties the prefix cache."""
        await self._llm.reset_prefix_cache()

    async def write(self, request: WriteRequest) -> list[Generation]:
        """n continuations, as n requests: vLLM batches them, and they share the context's blocks."""
        samples = (self._write_one(request, sample) for sample in range(request.n))
        return await _gathered(samples)

    async def _write_one(self, request: WriteRequest, sample: int) -> Generation:
        last: Generation | None = None
        async with aclosing(self.stream(request, sample, whole=True)) as items:
            async for item in items:
                if isinstance(item, Generation):
                    last = item
        assert last is not None
        return last

    async def stream(
        self, request: WriteRequest, sample: int = 0, *, whole: bool = False
    ) -> AsyncGenerator[TokenChunk | Generation, None]:
        """Tokens as they come, unless they are wanted whole, and the generation."""
        context = request.context_ids
        params = self._params(
            request.sampling,
            derived_seed(request.seed, len(context), sample),
            request.max_tokens,
            stop=request.stop,
            streams=not whole,
        )
        token_ids: list[int] = []
        logprobs: list[float] = []
        async with aclosing(self._ask(context, params, len(context) - 1, None)) as answers:
            async for answer in answers:
                token_ids += answer.token_ids
                logprobs += answer.logprobs
                if answer.token_ids and not whole:
                    yield TokenChunk(answer.token_ids)
        yield Generation(
            tuple(logprobs),
            answer.state,
            token_ids=tuple(token_ids),
            stop_reason="stop" if answer.finish_reason == "stop" else "length",
        )

    async def score(
        self,
        context: list[int],
        continuations: Sequence[list[int]],
        sampling: Sampling | None,
        seed: int,
    ) -> list[Score]:
        """A request each: vLLM reads them side by side."""
        return await _gathered(
            self._score_one(context, continuation, sampling, seed) for continuation in continuations
        )

    async def _score_one(
        self, context: list[int], continuation: list[int], sampling: Sampling | None, seed: int
    ) -> Score:
        ids = context + continuation
        for fresh in (False, True):
            params = self._params(
                sampling or GREEDY, derived_seed(seed, len(ids), 0), 1, reads=True, fresh=fresh
            )
            async with aclosing(self._ask(ids, params, len(context) - 1, len(continuation))) as answers:
                answer = [piece async for piece in answers][-1]
            if answer.num_cached < len(context):
                break
            # All of the context and some of the continuation were cached: the latter has no rows. Read it again.
        rows = answer.prompt_rows[-len(continuation) :]
        own = [row[token] for row, token in zip(rows, continuation, strict=True)]
        return Score(
            tuple(found.logprob for found in own),
            answer.state,
            ranks=tuple(found.rank for found in own),
            argmax_ids=tuple(_favourite(row) for row in rows),
            next_token_id=answer.token_ids[0] if sampling is not None else None,
        )

    def _params(
        self,
        sampling: Sampling,
        seed: int,
        max_tokens: int,
        *,
        stop: Stop = Stop(),  # noqa: B008
        streams: bool = False,
        reads: bool = False,
        fresh: bool = False,
    ) -> SamplingParams:
        greedy = sampling.temperature == 0
        return SamplingParams(
            temperature=sampling.temperature,
            top_p=1.0 if greedy else sampling.top_p,
            seed=None if greedy else seed,
            max_tokens=max_tokens,
            stop_token_ids=sorted(stop.ids),
            ignore_eos=True,
            detokenize=False,
            logprobs=0,
            prompt_logprobs=1 if reads else None,
            skip_reading_prefix_cache=fresh,  # left open, vLLM would not read the cache for prompt_logprobs
            output_kind=RequestOutputKind.DELTA if streams else RequestOutputKind.FINAL_ONLY,
        )

    async def _ask(
        self, ids: list[int], params: SamplingParams, first: int, count: int | None
    ) -> AsyncGenerator[Answer, None]:
        """One request. Answers are pieces, and only the last has a state.

        Raises:
            EngineError: vLLM refuses the request, or its process has ended.
        """
        number = next(self._numbers)
        asked = {"number": number, "first": first, "count": count, "pooling": self._pooling}
        params.extra_args = {"kv_transfer_params": {PARAMETERS: asked}}
        posted = self._mailbox.expect(number)
        try:
            outputs = self._llm.generate(
                {"prompt_token_ids": ids}, params, request_id=f"semanticspec-{number}"
            )
            async with aclosing(outputs):
                async for output in outputs:
                    state = await self._state(posted) if output.finished else posted
                    yield _answer(output, state)
        except EngineDeadError as error:
            raise EngineError(
                "vLLM's engine process has ended; its log says why. Load the model again"
            ) from error
        except ValueError as error:
            raise EngineError(f"vLLM refuses the request: {error}") from error
        finally:
            self._mailbox.forget(number)

    async def _state(self, posted: asyncio.Future[Tensor]) -> Tensor:
        try:
            return await asyncio.wait_for(posted, _STATE_PATIENCE_S) * self._weight
        except TimeoutError:
            raise EngineError(
                f"vLLM answered, but its hidden states did not come within {_STATE_PATIENCE_S:.0f} s; is its worker "
                "on another machine?"
            ) from None


def _answer(output: Any, state: Any) -> Answer:
    """vLLM's `RequestOutput` in our terms."""
    (written,) = output.outputs
    logprobs = (row[token].logprob for row, token in zip(written.logprobs, written.token_ids, strict=True))
    return Answer(
        tuple(written.token_ids),
        tuple(logprobs),
        written.finish_reason or "",
        output.prompt_logprobs or (),
        output.num_cached_tokens or 0,
        state,
    )


def _favourite(row: Any) -> int:
    """The id with the highest log-probability in a row."""
    return int(max(row, key=lambda token: row[token].logprob))


async def _gathered(calls: Any) -> list[Any]:
    """All of them; if one fails, or the caller gives up, the others are cancelled."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
