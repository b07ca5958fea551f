"""The `score` call: log-probabilities and ranks of prompt tokens."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from vllm.sampling_params import RequestOutputKind

from semanticspec.engines.base import derived_seed
from semanticspec.engines.runtime.requests import ScoreRequest
from semanticspec.engines.vllm.client import VllmClient, gather, sampling_params
from semanticspec.records import GREEDY, Score


async def score(client: VllmClient, request: ScoreRequest) -> list[Score]:
    """Scores each continuation with a request of its own; vLLM batches them."""
    return await gather(_score_one(client, request, continuation) for continuation in request.continuations)


async def _score_one(client: VllmClient, request: ScoreRequest, continuation: list[int]) -> Score:
    num_context, token_ids = len(request.context_ids), request.context_ids + continuation
    # vLLM returns no prompt log-probabilities of cached tokens. If some of the continuation was cached, run again
    # without the prefix cache.
    for skip_cache in (False, True):
        params = sampling_params(
            request.sampling or GREEDY,
            derived_seed(request.seed, len(token_ids), 0),
            max_tokens=1,
            prompt_logprobs=1,
            skip_reading_prefix_cache=skip_cache,  # by default, vLLM skips it for prompt_logprobs
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        run = client.run(token_ids, params, first=num_context - 1, count=len(continuation))
        async with aclosing(run) as items:
            received: list[Any] = [item async for item in items]
        output, state = received
        if (output.num_cached_tokens or 0) < num_context:
            break
    rows = output.prompt_logprobs[-len(continuation) :]
    own = [row[token_id] for row, token_id in zip(rows, continuation, strict=True)]
    return Score(
        tuple(entry.logprob for entry in own),
        state,
        ranks=tuple(entry.rank for entry in own),
        argmax_ids=tuple(_argmax(row) for row in rows),
        next_token_id=output.outputs[0].token_ids[0] if request.sampling is not None else None,
    )


def _argmax(row: Any) -> int:
    """Returns the id with the highest log-probability."""
    return int(max(row, key=lambda token_id: row[token_id].logprob))
