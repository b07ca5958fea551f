"""The `generate` and `stream` calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from torch import Tensor
from vllm.sampling_params import RequestOutputKind

from semanticspec.engines.base import TokenChunk, derived_seed
from semanticspec.engines.runtime.requests import GenerateRequest
from semanticspec.engines.vllm.client import VllmClient, gather, sampling_params
from semanticspec.records import Generation


async def generate(client: VllmClient, request: GenerateRequest) -> list[Generation]:
    """Samples n continuations as n requests: vLLM batches them, and they share the context's KV blocks."""
    return await gather(_generate_one(client, request, sample) for sample in range(request.n))


async def _generate_one(client: VllmClient, request: GenerateRequest, sample: int) -> Generation:
    async with aclosing(stream(client, request, sample, RequestOutputKind.FINAL_ONLY)) as items:
        *_, last = [item async for item in items]
    assert isinstance(last, Generation)
    return last


async def stream(
    client: VllmClient,
    request: GenerateRequest,
    sample: int = 0,
    output_kind: RequestOutputKind = RequestOutputKind.DELTA,
) -> AsyncGenerator[TokenChunk | Generation, None]:
    """Yields the tokens of sample number `sample` as vLLM outputs them, and the `Generation` last."""
    context = request.context_ids
    params = sampling_params(
        request.sampling,
        derived_seed(request.seed, len(context), sample),
        request.max_tokens,
        stop_token_ids=sorted(request.stop.ids),
        output_kind=output_kind,
    )
    token_ids: list[int] = []
    logprobs: list[float] = []
    finish_reason = None
    async with aclosing(client.run(context, params, first=len(context) - 1)) as items:
        async for item in items:
            if isinstance(item, Tensor):
                state = item
                continue
            (new,) = item.outputs
            token_ids += new.token_ids
            logprobs += [row[i].logprob for row, i in zip(new.logprobs, new.token_ids, strict=True)]
            finish_reason = new.finish_reason
            if new.token_ids:
                yield TokenChunk(tuple(new.token_ids))
    yield Generation(
        tuple(logprobs),
        state,
        token_ids=tuple(token_ids),
        stop_reason="stop" if finish_reason == "stop" else "length",
    )
