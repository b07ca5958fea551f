"""Prefix caches save work, stay bounded, and change no result."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
import torch

from semanticspec.engines.runtime import generation as runtime_generation
from semanticspec.engines.runtime.worker import WorkerEngine
from semanticspec.records import Generation, Sampling, Score, Stop
from tests.support.subjects import Subject, load, prefix_cache_of

SAMPLING = Sampling(temperature=0.8, top_p=0.9)
PROMPT = [3, 14, 15, 9, 26, 5, 35, 8, 9, 7, 9, 3]
REJECTED = [1, 2, 3, 4, 5, 6]
TOLERANCE = 1e-4


async def generate(
    engine: WorkerEngine, context: list[int], max_tokens: int, request_id: str | None = None
) -> Generation:
    (generation,) = await engine.generate(
        context, max_tokens=max_tokens, stop=Stop(), sampling=SAMPLING, seed=1, request_id=request_id
    )
    return generation


async def score(
    engine: WorkerEngine, context: list[int], segment: list[int], request_id: str | None = None
) -> Score:
    (result,) = await engine.score(context, [segment], request_id=request_id)
    return result


def check_score(score: Score, subject: Subject, context: list[int], segment: list[int]) -> None:
    whole = [*context, *segment]
    predicting = slice(len(context) - 1, len(whole) - 1)
    rows = subject.logprobs(whole)[predicting].gather(1, torch.tensor(segment)[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(score.logprobs), rows, atol=TOLERANCE, rtol=0)
    state = subject.states(whole)[predicting].mean(0)
    torch.testing.assert_close(score.pooled_state, state, atol=TOLERANCE, rtol=0)


async def test_an_accepted_segment_is_not_prefilled_again(
    engine: WorkerEngine, llama: Subject, passes: list[int], copies: list[int]
) -> None:
    segment = [9, 8, 7, 6]
    await score(engine, PROMPT, segment, "r")
    assert passes == [len(PROMPT) + len(segment)]
    context = [*PROMPT, *segment]
    generation = await generate(engine, context, 3, "r")
    assert passes[1:] == [1, 1], "the output after the segment is cached, so the first token needs no pass"
    assert generation.token_ids == llama.continuation(context, 3, SAMPLING, seed=1)
    context += generation.token_ids
    check_score(await score(engine, context, segment, "r"), llama, context, segment)
    assert passes[3:] == [1 + len(segment)], "the last generated token is not in the KV cache yet"
    assert copies == []


async def test_a_rejected_segment_is_truncated_in_place(
    engine: WorkerEngine, llama: Subject, passes: list[int], copies: list[int]
) -> None:
    await score(engine, PROMPT, REJECTED, "r")
    del passes[:]
    generation = await generate(engine, PROMPT, 4, "r")
    assert passes == [1, 1, 1], "the output after the context is cached by the score"
    assert generation.token_ids == llama.continuation(PROMPT, 4, SAMPLING, seed=1)
    await generate(engine, [*PROMPT, *REJECTED[:2], 7], 1, "r")
    assert copies == []
    assert len(prefix_cache_of(engine)) == 1


async def test_the_kept_part_of_a_rejected_segment_is_not_prefilled_again(
    engine: WorkerEngine, llama: Subject, passes: list[int]
) -> None:
    """As in partial acceptance: some tokens are kept, and a replacement follows."""
    await score(engine, PROMPT, REJECTED, "r")
    context = [*PROMPT, *REJECTED[:3], 50]
    del passes[:]
    generation = await generate(engine, context, 2, "r")
    assert passes == [1, 1]
    assert generation.token_ids == llama.continuation(context, 2, SAMPLING, seed=1)


async def test_repeated_scores_make_no_copies(
    engine: WorkerEngine, passes: list[int], copies: list[int]
) -> None:
    for _ in range(4):
        await score(engine, PROMPT, REJECTED)
    assert copies == []
    assert passes[1:] == [len(REJECTED)] * 3


async def test_a_context_equal_to_a_cached_sequence_is_scored_correctly(
    engine: WorkerEngine, llama: Subject
) -> None:
    """The last context token is a predicting position even if the whole context is cached."""
    generation = await generate(engine, PROMPT, 6, "r")
    context = [*PROMPT, *generation.token_ids[:-1]]  # exactly what is cached, without the output at its end
    segment = [4, 5]
    check_score(await score(engine, context, segment, "r"), llama, context, segment)


async def test_outputs_of_a_truncated_part_are_dropped(engine: WorkerEngine, llama: Subject) -> None:
    """The new text has the same length as the rejected one, so a stale output would be found there."""
    await score(engine, PROMPT, REJECTED, "r")
    generation = await generate(engine, PROMPT, len(REJECTED) + 1, "r")
    context = [*PROMPT, *generation.token_ids[: len(REJECTED)]]
    check_score(await score(engine, context, [4, 5], "r"), llama, context, [4, 5])


@pytest.mark.parametrize("request_ids", [("a", "b"), (None, None), ("same", "same")])
async def test_interleaved_requests_with_a_common_prompt(
    engine: WorkerEngine, llama: Subject, passes: list[int], request_ids: tuple[str | None, str | None]
) -> None:
    contexts = [[*PROMPT], [*PROMPT]]
    for turn in range(6):
        for which, context in enumerate(contexts):
            segment = [10 * which + turn + 1, 30 + turn, 40 + which]
            check_score(await score(engine, context, segment, request_ids[which]), llama, context, segment)
            if turn % 2:
                context += segment
            else:
                generation = await generate(engine, context, 3, request_ids[which])
                assert generation.token_ids == llama.continuation(context, 3, SAMPLING, seed=1)
                context += generation.token_ids
    if request_ids[0] != "same":
        # The prompt once, then about 3 + 2 tokens per turn and request: no thrashing.
        assert sum(passes) <= len(PROMPT) + 12 * 7


async def test_concurrent_calls_equal_serial_calls(
    engine: WorkerEngine, llama: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn is one token, so that calls find sequences that other calls are using."""
    monkeypatch.setattr(runtime_generation, "TURN_S", 0)
    numbers = random.Random(5)
    calls = []
    for index in range(14):
        context = [*PROMPT[: 4 + index % 9], *(numbers.randrange(61) for _ in range(index % 4))]
        request_id = numbers.choice([None, "a", "b", f"own-{index}"])
        calls.append((context, request_id))
    written = asyncio.gather(*(generate(engine, context, 12, request_id) for context, request_id in calls))
    scored = asyncio.gather(*(score(engine, context, REJECTED, request_id) for context, request_id in calls))
    for (context, _), generation in zip(calls, await written, strict=True):
        assert generation.token_ids == llama.continuation(context, 12, SAMPLING, seed=1)
    for (context, _), result in zip(calls, await scored, strict=True):
        check_score(result, llama, context, REJECTED)


async def test_a_batch_leaves_its_context_in_the_cache(
    engine: WorkerEngine, llama: Subject, passes: list[int]
) -> None:
    await engine.generate(PROMPT, n=5, max_tokens=4, stop=Stop(), sampling=SAMPLING)
    del passes[:]
    await engine.score(PROMPT, [REJECTED, REJECTED[:2]])
    assert len(passes) == 1, "all rows in one pass, without the context"
    check_score(await score(engine, PROMPT, REJECTED), llama, PROMPT, REJECTED)


async def test_the_cache_size_is_bounded(model_folders: dict[str, Path]) -> None:
    engine = load(model_folders["llama"], cache_bytes=300_000)
    sizes: list[int] = []
    for index in range(100):
        context = [index % 61, index // 61, *PROMPT[:4]]
        await generate(engine, context, 2, f"request-{index}")
        sizes.append(prefix_cache_of(engine).size())
    assert max(sizes) <= 300_000
    assert max(sizes[50:]) == max(sizes[20:50]), "the cache must be full, and no larger, long before the end"
    assert len(prefix_cache_of(engine)) > 2
    small = load(model_folders["llama"], cache_bytes=1)
    await generate(small, PROMPT, 20)
    assert len(small._prefix_cache) == 0


async def test_the_number_of_idle_sequences_is_bounded(engine: WorkerEngine) -> None:
    prefix_cache_of(engine)._max_sequences = 5
    for index in range(12):
        await generate(engine, [index, *PROMPT], 2, f"request-{index}")
    assert len(prefix_cache_of(engine)) == 5


async def test_the_least_recently_used_sequence_is_evicted_first(
    engine: WorkerEngine, passes: list[int]
) -> None:
    prefix_cache_of(engine)._max_sequences = 2
    for first in (1, 2, 1, 3):
        await generate(engine, [first, *PROMPT], 1, f"request-{first}")
    del passes[:]
    await generate(engine, [1, *PROMPT], 1, "request-1")
    assert passes == []
    await generate(engine, [2, *PROMPT], 1, "request-2")
    assert passes == [1 + len(PROMPT)]


async def test_a_failed_call_leaves_no_inconsistent_sequence(
    model_folders: dict[str, Path], llama: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass that fails halfway leaves layers of different lengths, which must not be reused."""
    engine = load(model_folders["llama"])
    await generate(engine, PROMPT, 5, "r")
    layer = engine._runner._base.layers[1]
    forward = layer.forward

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(layer, "forward", fails)
    with pytest.raises(Exception, match="RuntimeError: out of memory"):
        await generate(engine, [*PROMPT, 4, 4], 5, "r")
    monkeypatch.setattr(layer, "forward", forward)
    context = [*PROMPT, 4, 4, 5]
    assert (await generate(engine, context, 5, "r")).token_ids == llama.continuation(
        context, 5, SAMPLING, seed=1
    )


async def test_kv_caches_that_cannot_be_cropped_are_not_kept(model_folders: dict[str, Path]) -> None:
    engine = load(model_folders["lfm2-recurrent"])
    assert not engine.info.capabilities.prefix_cache
    await generate(engine, PROMPT, 20)
    assert len(engine._prefix_cache) == 0


async def test_logits_scaled_outside_the_head_are_detected(model_folders: dict[str, Path]) -> None:
    assert load(model_folders["granite-scaled"])._runner.computes_logits
    assert not load(model_folders["llama"])._runner.computes_logits


async def test_reset_cache_empties_the_cache(engine: WorkerEngine, passes: list[int]) -> None:
    (before,) = await engine.score(PROMPT, [REJECTED])
    await engine.reset_cache()
    passes.clear()
    (after,) = await engine.score(PROMPT, [REJECTED])
    assert sum(passes) == len(PROMPT) + len(REJECTED)
    assert after.logprobs == before.logprobs
