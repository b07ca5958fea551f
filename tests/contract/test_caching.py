"""What engines keep between calls: it saves work, stays bounded, and changes no answer."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
import torch

from semanticspec.engines.runtime import generation as writing
from semanticspec.engines.runtime.engine import WorkerEngine
from semanticspec.engines.transformers.engine import TransformersEngine
from semanticspec.records import Generation, Sampling, Score, Stop
from tests.support.subjects import Subject, load, pool_of

SAMPLING = Sampling(temperature=0.8, top_p=0.9)
PROMPT = [3, 14, 15, 9, 26, 5, 35, 8, 9, 7, 9, 3]
REJECTED = [1, 2, 3, 4, 5, 6]
TOLERANCE = 1e-4


async def write(
    engine: WorkerEngine, context: list[int], max_tokens: int, request_id: str | None = None
) -> Generation:
    (generation,) = await engine.generate(
        context, max_tokens=max_tokens, stop=Stop(), sampling=SAMPLING, seed=1, request_id=request_id
    )
    return generation


async def read(
    engine: WorkerEngine, context: list[int], segment: list[int], request_id: str | None = None
) -> Score:
    (score,) = await engine.score(context, [segment], request_id=request_id)
    return score


def check_score(score: Score, subject: Subject, context: list[int], segment: list[int]) -> None:
    whole = [*context, *segment]
    predicting = slice(len(context) - 1, len(whole) - 1)
    rows = subject.logprobs(whole)[predicting].gather(1, torch.tensor(segment)[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(score.logprobs), rows, atol=TOLERANCE, rtol=0)
    state = subject.states(whole)[predicting].mean(0)
    torch.testing.assert_close(score.pooled_state, state, atol=TOLERANCE, rtol=0)


async def test_accepted_segment_is_not_read_again(
    engine: WorkerEngine, llama: Subject, passes: list[int], copies: list[int]
) -> None:
    segment = [9, 8, 7, 6]
    await read(engine, PROMPT, segment, "r")
    assert passes == [len(PROMPT) + len(segment)]
    context = [*PROMPT, *segment]
    generation = await write(engine, context, 3, "r")
    assert passes[1:] == [1, 1], "the first token needs no pass: what comes after the segment is known"
    assert generation.token_ids == llama.continuation(context, 3, SAMPLING, seed=1)
    context += generation.token_ids
    check_score(await read(engine, context, segment, "r"), llama, context, segment)
    assert passes[3:] == [1 + len(segment)], "the last token written was not read yet"
    assert copies == []


async def test_rejected_segment_is_cut_in_place(
    engine: WorkerEngine, llama: Subject, passes: list[int], copies: list[int]
) -> None:
    await read(engine, PROMPT, REJECTED, "r")
    del passes[:]
    generation = await write(engine, PROMPT, 4, "r")
    assert passes == [1, 1, 1], "what comes after the context is known from the score"
    assert generation.token_ids == llama.continuation(PROMPT, 4, SAMPLING, seed=1)
    await write(engine, [*PROMPT, *REJECTED[:2], 7], 1, "r")
    assert copies == []
    assert len(pool_of(engine)) == 1


async def test_kept_part_of_a_rejected_segment_is_not_read_again(
    engine: WorkerEngine, llama: Subject, passes: list[int]
) -> None:
    """As the token rule does: some tokens kept, another one put after them."""
    await read(engine, PROMPT, REJECTED, "r")
    context = [*PROMPT, *REJECTED[:3], 50]
    del passes[:]
    generation = await write(engine, context, 2, "r")
    assert passes == [1, 1]
    assert generation.token_ids == llama.continuation(context, 2, SAMPLING, seed=1)


async def test_repeated_score_makes_no_copies(
    engine: WorkerEngine, passes: list[int], copies: list[int]
) -> None:
    for _ in range(4):
        await read(engine, PROMPT, REJECTED)
    assert copies == []
    assert passes[1:] == [len(REJECTED)] * 3


async def test_context_equal_to_a_kept_one_is_not_shortened(engine: WorkerEngine, llama: Subject) -> None:
    """The last context token is a predicting position even where all of the context is cached."""
    generation = await write(engine, PROMPT, 6, "r")
    context = [*PROMPT, *generation.token_ids[:-1]]  # exactly what is cached, without a mark at its end
    segment = [4, 5]
    check_score(await read(engine, context, segment, "r"), llama, context, segment)


async def test_what_was_known_of_a_cut_off_part_is_forgotten(engine: WorkerEngine, llama: Subject) -> None:
    """The new text is as long as the rejected one, so that what came after that would be found in its place."""
    await read(engine, PROMPT, REJECTED, "r")
    generation = await write(engine, PROMPT, len(REJECTED) + 1, "r")
    context = [*PROMPT, *generation.token_ids[: len(REJECTED)]]
    check_score(await read(engine, context, [4, 5], "r"), llama, context, [4, 5])


@pytest.mark.parametrize("request_ids", [("a", "b"), (None, None), ("same", "same")])
async def test_two_interleaved_requests_of_one_prompt(
    engine: WorkerEngine, llama: Subject, passes: list[int], request_ids: tuple[str | None, str | None]
) -> None:
    contexts = [[*PROMPT], [*PROMPT]]
    for turn in range(6):
        for which, context in enumerate(contexts):
            segment = [10 * which + turn + 1, 30 + turn, 40 + which]
            score = await read(engine, context, segment, request_ids[which])
            check_score(score, llama, context, segment)
            if turn % 2:
                context += segment
            else:
                generation = await write(engine, context, 3, request_ids[which])
                assert generation.token_ids == llama.continuation(context, 3, SAMPLING, seed=1)
                context += generation.token_ids
    if request_ids[0] != "same":
        # Prompt once, then about 3 + 2 tokens a turn each: no thrashing.
        assert sum(passes) <= len(PROMPT) + 12 * 7


async def test_concurrent_calls_equal_serial_ones(
    engine: WorkerEngine, llama: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With turns of one token, so that calls meet caches that others are working on."""
    monkeypatch.setattr(writing, "TURN_S", 0)
    numbers = random.Random(5)
    calls = []
    for index in range(14):
        context = [*PROMPT[: 4 + index % 9], *(numbers.randrange(61) for _ in range(index % 4))]
        request_id = numbers.choice([None, "a", "b", f"own-{index}"])
        calls.append((context, request_id))
    written = asyncio.gather(*(write(engine, context, 12, request_id) for context, request_id in calls))
    scored = asyncio.gather(*(read(engine, context, REJECTED, request_id) for context, request_id in calls))
    for (context, _), generation in zip(calls, await written, strict=True):
        assert generation.token_ids == llama.continuation(context, 12, SAMPLING, seed=1)
    for (context, _), score in zip(calls, await scored, strict=True):
        check_score(score, llama, context, REJECTED)


async def test_batch_leaves_the_context_reusable(
    engine: WorkerEngine, llama: Subject, passes: list[int]
) -> None:
    await engine.generate(PROMPT, n=5, max_tokens=4, stop=Stop(), sampling=SAMPLING)
    del passes[:]
    await engine.score(PROMPT, [REJECTED, REJECTED[:2]])
    assert len(passes) == 1, "all rows in one pass, and the context is not read again"
    check_score(await read(engine, PROMPT, REJECTED), llama, PROMPT, REJECTED)


async def test_pool_is_bounded(model_folders: dict[str, Path]) -> None:
    engine = load(model_folders["llama"], cache_bytes=300_000)
    sizes: list[int] = []
    for index in range(100):
        context = [index % 61, index // 61, *PROMPT[:4]]
        await write(engine, context, 2, f"request-{index}")
        sizes.append(pool_of(engine).size())
    assert max(sizes) <= 300_000
    assert max(sizes[50:]) == max(sizes[20:50]), "the pool must be full, and no larger, long before the end"
    assert len(pool_of(engine)) > 2
    small = load(model_folders["llama"], cache_bytes=1)
    await write(small, PROMPT, 20)
    assert len(small._pool) == 0


async def test_number_of_kept_sequences_is_bounded(engine: WorkerEngine) -> None:
    pool_of(engine)._max_sequences = 5
    for index in range(12):
        await write(engine, [index, *PROMPT], 2, f"request-{index}")
    assert len(pool_of(engine)) == 5


async def test_least_recently_used_goes_first(engine: WorkerEngine, passes: list[int]) -> None:
    pool_of(engine)._max_sequences = 2
    for first in (1, 2, 1, 3):
        await write(engine, [first, *PROMPT], 1, f"request-{first}")
    del passes[:]
    await write(engine, [1, *PROMPT], 1, "request-1")
    assert passes == []
    await write(engine, [2, *PROMPT], 1, "request-2")
    assert passes == [1 + len(PROMPT)]


async def test_failed_call_leaves_no_broken_cache(
    model_folders: dict[str, Path], llama: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass that fails half-way leaves layers of different lengths behind; they must not be used again."""
    engine = load(model_folders["llama"])
    await write(engine, PROMPT, 5, "r")
    layer = engine._network._base.layers[1]
    forward = layer.forward

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory, say")

    monkeypatch.setattr(layer, "forward", fails)
    with pytest.raises(Exception, match="RuntimeError: out of memory, say"):
        await write(engine, [*PROMPT, 4, 4], 5, "r")
    monkeypatch.setattr(layer, "forward", forward)
    context = [*PROMPT, 4, 4, 5]
    assert (await write(engine, context, 5, "r")).token_ids == llama.continuation(
        context, 5, SAMPLING, seed=1
    )


@pytest.fixture
def sliding(model_folders: dict[str, Path]) -> TransformersEngine:
    return load(model_folders["mistral-sliding"])


async def test_caches_that_cannot_be_cut_are_not_kept(sliding: TransformersEngine) -> None:
    assert not sliding._network.reusable
    await write(sliding, PROMPT, 20)
    assert len(sliding._pool) == 0


async def test_logits_scaled_outside_the_head_are_noticed(model_folders: dict[str, Path]) -> None:
    assert load(model_folders["granite-scaled"])._network.computes_logits
    assert not load(model_folders["llama"])._network.computes_logits


async def test_what_is_forgotten_is_read_again(engine: WorkerEngine, passes: list[int]) -> None:
    """A measurement must not profit from what was asked before."""
    (before,) = await engine.score(PROMPT, [REJECTED])
    await engine.forget()
    passes.clear()
    (after,) = await engine.score(PROMPT, [REJECTED])
    assert sum(passes) == len(PROMPT) + len(REJECTED)
    assert after.logprobs == before.logprobs
