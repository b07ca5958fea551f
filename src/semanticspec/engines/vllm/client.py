"""Sends requests to vLLM, and matches their outputs with the pooled hidden states."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Coroutine, Iterable
from contextlib import aclosing
from typing import Any, TypeVar

from torch import Tensor
from vllm import SamplingParams
from vllm.outputs import RequestOutput
from vllm.v1.engine.exceptions import EngineDeadError

from semanticspec.engines.base import Pooling
from semanticspec.engines.vllm.connector import PARAMETERS
from semanticspec.engines.vllm.mailbox import Mailbox
from semanticspec.errors import EngineError
from semanticspec.records import Sampling

T = TypeVar("T")
_STATE_TIMEOUT_S = 60.0
"""A state arrives one engine step after its request has finished."""


class VllmClient:
    """A running vLLM engine. Lives on one event loop."""

    def __init__(self, llm: Any, mailbox: Mailbox, norm_weight: Tensor, pooling: Pooling) -> None:
        """Wraps vLLM's `AsyncLLM`.

        Args:
            llm: the engine.
            mailbox: where the connector sends pooled states.
            norm_weight: weight of the final norm, `[hidden]`, float32.
            pooling: how the connector pools.
        """
        self._llm, self._mailbox = llm, mailbox
        self._norm_weight, self._pooling = norm_weight, pooling
        self._numbers = itertools.count()

    async def reset_cache(self) -> None:
        """Empties vLLM's prefix cache."""
        await self._llm.reset_prefix_cache()

    async def aclose(self) -> None:
        """Ends vLLM's processes."""
        self._llm.shutdown()
        self._mailbox.close()

    async def run(
        self, token_ids: list[int], params: SamplingParams, first: int, count: int | None = None
    ) -> AsyncGenerator[RequestOutput | Tensor, None]:
        """Runs one request. Yields vLLM's outputs, and last the pooled state `[hidden]`, float32.

        Args:
            token_ids: the prompt.
            params: vLLM's sampling parameters.
            first: first position to pool.
            count: number of positions to pool; None = up to the last but one token of prompt and output.

        Raises:
            EngineError: vLLM refuses the request, or its process has ended.
        """
        number = next(self._numbers)
        pooled = {"number": number, "first": first, "count": count, "pooling": self._pooling}
        params.extra_args = {"kv_transfer_params": {PARAMETERS: pooled}}
        state = self._mailbox.expect(number)
        try:
            outputs = self._llm.generate(
                {"prompt_token_ids": token_ids}, params, request_id=f"semanticspec-{number}"
            )
            async with aclosing(outputs):
                async for output in outputs:
                    yield output
            yield await asyncio.wait_for(state, _STATE_TIMEOUT_S) * self._norm_weight
        except EngineDeadError as error:
            raise EngineError(
                "vLLM's engine process has ended; see its log and load the model again"
            ) from error
        except ValueError as error:
            raise EngineError(f"vLLM refuses the request: {error}") from error
        except TimeoutError:
            raise EngineError(
                f"no hidden states from vLLM within {_STATE_TIMEOUT_S:.0f} s; its worker must run on this machine"
            ) from None
        finally:
            self._mailbox.discard(number)


def sampling_params(sampling: Sampling, seed: int, max_tokens: int, **options: Any) -> SamplingParams:
    """Returns vLLM's sampling parameters; `options` are passed on to it."""
    greedy = sampling.temperature == 0
    return SamplingParams(
        temperature=sampling.temperature,
        top_p=1.0 if greedy else sampling.top_p,
        seed=None if greedy else seed,
        max_tokens=max_tokens,
        ignore_eos=True,
        detokenize=False,
        logprobs=0,
        **options,
    )


async def gather(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Awaits all calls concurrently. If one fails or the caller is cancelled, the others are cancelled."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
