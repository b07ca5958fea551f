"""Cancelled and closed calls stop soon and leave the engine usable. Calls take turns."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from semanticspec.engines.base import TokenChunk
from semanticspec.engines.runtime.worker import WorkerEngine
from semanticspec.errors import EngineError
from semanticspec.records import Sampling, Stop
from tests.support.subjects import Subject, prefix_cache_of

SAMPLING = Sampling(temperature=0.8, top_p=0.9)
PROMPT = [3, 14, 15, 9, 26, 5, 35, 8]
LONG = 3000  # tokens; takes the tiny models several seconds


async def check_usable(engine: WorkerEngine, oracle: Subject) -> None:
    (generation,) = await engine.generate(PROMPT, max_tokens=10, stop=Stop(), sampling=SAMPLING)
    assert generation.token_ids == oracle.continuation(PROMPT, 10, SAMPLING)


async def check_idle(passes: list[int]) -> None:
    """Waits until the worker has ended its turn (about 20 ms) and does nothing more."""
    for _ in range(10):  # a loaded machine may need longer
        before = len(passes)
        await asyncio.sleep(0.2)
        if len(passes) == before:
            break
    assert len(passes) == before < LONG - 500


@pytest.mark.parametrize("n", [1, 3])
async def test_a_cancelled_generate_call_stops(
    engine: WorkerEngine, llama: Subject, passes: list[int], n: int
) -> None:
    call = engine.generate(PROMPT, n=n, max_tokens=LONG, stop=Stop(), sampling=SAMPLING)
    task = asyncio.create_task(call)
    while not passes:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await check_idle(passes)
    await check_usable(engine, llama)
    assert not any(sequence.busy for sequence in prefix_cache_of(engine)._sequences)


async def test_a_call_cancelled_during_prefill_stops(
    engine: WorkerEngine, llama: Subject, passes: list[int]
) -> None:
    """A long context is prefilled in chunks; a cancelled call skips the rest."""
    context = [i % 61 for i in range(4000)]
    task = asyncio.create_task(engine.score(context, [PROMPT]))
    while not passes:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await check_idle(passes)
    assert sum(passes) < len(context)
    await check_usable(engine, llama)


async def test_calls_cancelled_early_do_not_run(
    engine: WorkerEngine, llama: Subject, passes: list[int]
) -> None:
    tasks = [
        asyncio.create_task(engine.generate([i, *PROMPT], max_tokens=LONG, stop=Stop(), sampling=SAMPLING))
        for i in range(5)
    ]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await check_idle(passes)
    await check_usable(engine, llama)


async def test_a_closed_stream_stops(engine: WorkerEngine, llama: Subject, passes: list[int]) -> None:
    stream = engine.stream(PROMPT, max_tokens=LONG, stop=Stop(), sampling=SAMPLING)
    async with aclosing(stream):
        token_ids: list[int] = []
        while len(token_ids) < 20:
            chunk = await anext(stream)
            assert isinstance(chunk, TokenChunk)
            token_ids += chunk.token_ids
    await check_idle(passes)
    assert tuple(token_ids[:20]) == llama.continuation(PROMPT, 20, SAMPLING)
    await check_usable(engine, llama)


async def test_a_short_call_does_not_wait_for_a_long_one(engine: WorkerEngine, llama: Subject) -> None:
    long = asyncio.create_task(engine.generate([1, *PROMPT], max_tokens=LONG, stop=Stop(), sampling=SAMPLING))
    await asyncio.sleep(0.05)
    await check_usable(engine, llama)
    assert not long.done()
    long.cancel()


async def test_the_event_loop_stays_responsive(engine: WorkerEngine) -> None:
    """A 5 ms ticker keeps ticking while the worker decodes, even if the interpreter lock delays it."""
    task = asyncio.create_task(engine.generate(PROMPT, max_tokens=500, stop=Stop(), sampling=SAMPLING))
    ticks = 0
    while not task.done():
        await asyncio.sleep(0.005)
        ticks += 1
    assert ticks >= 5


def test_one_engine_on_several_event_loops(engine: WorkerEngine, llama: Subject) -> None:
    for _ in range(2):
        asyncio.run(check_usable(engine, llama))


async def test_close_fails_running_and_later_calls(engine: WorkerEngine) -> None:
    long = asyncio.create_task(engine.generate(PROMPT, max_tokens=LONG, stop=Stop(), sampling=SAMPLING))
    waiting = asyncio.create_task(engine.score(PROMPT, [[1, 2]]))
    await asyncio.sleep(0)
    await engine.aclose()
    with pytest.raises(EngineError, match="closed"):
        await long
    await asyncio.gather(waiting, return_exceptions=True)  # either outcome is fine, but it must end
    await engine.aclose()
    with pytest.raises(EngineError, match="closed"):
        await engine.generate(PROMPT, max_tokens=1, stop=Stop(), sampling=SAMPLING)
    with pytest.raises(EngineError, match="closed"):
        await engine.score(PROMPT, [[1]])
    with pytest.raises(EngineError, match="closed"):
        await anext(engine.stream(PROMPT, max_tokens=1, stop=Stop(), sampling=SAMPLING))
