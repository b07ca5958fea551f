"""Calls that are cancelled or closed stop soon and leave the engine usable; calls take turns."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from semanticspec.engines.base import TokenChunk
from semanticspec.engines.runtime.engine import WorkerEngine
from semanticspec.errors import EngineError
from semanticspec.records import Sampling, Stop
from tests.support.subjects import Subject, pool_of

SAMPLING = Sampling(temperature=0.8, top_p=0.9)
PROMPT = [3, 14, 15, 9, 26, 5, 35, 8]
LONG = 3000  # tokens; seconds of work for the tiny models


async def check_usable(engine: WorkerEngine, oracle: Subject) -> None:
    (generation,) = await engine.generate(PROMPT, max_tokens=10, stop=Stop(), sampling=SAMPLING)
    assert generation.token_ids == oracle.continuation(PROMPT, 10, SAMPLING)


async def check_idle(passes: list[int]) -> None:
    """The worker ends the turn it is in (about 20 ms) and then does nothing more."""
    for _ in range(10):  # a machine with other work needs more than one look
        before = len(passes)
        await asyncio.sleep(0.2)
        if len(passes) == before:
            break
    assert len(passes) == before < LONG - 500


@pytest.mark.parametrize("n", [1, 3])
async def test_cancelled_generate(engine: WorkerEngine, llama: Subject, passes: list[int], n: int) -> None:
    call = engine.generate(PROMPT, n=n, max_tokens=LONG, stop=Stop(), sampling=SAMPLING)
    task = asyncio.create_task(call)
    while not passes:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await check_idle(passes)
    await check_usable(engine, llama)
    assert not any(sequence.busy for sequence in pool_of(engine)._sequences)


async def test_cancelled_while_it_reads(engine: WorkerEngine, llama: Subject, passes: list[int]) -> None:
    """A long context is read in pieces, and nobody reads the rest once the call is cancelled."""
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


async def test_cancelled_before_its_turn(engine: WorkerEngine, llama: Subject, passes: list[int]) -> None:
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


async def test_closed_stream(engine: WorkerEngine, llama: Subject, passes: list[int]) -> None:
    stream = engine.stream(PROMPT, max_tokens=LONG, stop=Stop(), sampling=SAMPLING)
    async with aclosing(stream):
        written: list[int] = []
        while len(written) < 20:
            chunk = await anext(stream)
            assert isinstance(chunk, TokenChunk)
            written += chunk.token_ids
    await check_idle(passes)
    assert tuple(written[:20]) == llama.continuation(PROMPT, 20, SAMPLING)
    await check_usable(engine, llama)


async def test_short_call_does_not_wait_for_a_long_one(engine: WorkerEngine, llama: Subject) -> None:
    long = asyncio.create_task(engine.generate([1, *PROMPT], max_tokens=LONG, stop=Stop(), sampling=SAMPLING))
    await asyncio.sleep(0.05)
    await check_usable(engine, llama)
    assert not long.done()
    long.cancel()


async def test_event_loop_stays_free(engine: WorkerEngine) -> None:
    """A ticker of 5 ms must tick while the worker writes; the interpreter's lock makes it late, not silent."""
    task = asyncio.create_task(engine.generate(PROMPT, max_tokens=500, stop=Stop(), sampling=SAMPLING))
    ticks = 0
    while not task.done():
        await asyncio.sleep(0.005)
        ticks += 1
    assert ticks >= 5


def test_one_engine_on_several_event_loops(engine: WorkerEngine, llama: Subject) -> None:
    for _ in range(2):
        asyncio.run(check_usable(engine, llama))


async def test_close(engine: WorkerEngine) -> None:
    long = asyncio.create_task(engine.generate(PROMPT, max_tokens=LONG, stop=Stop(), sampling=SAMPLING))
    waiting = asyncio.create_task(engine.score(PROMPT, [[1, 2]]))
    await asyncio.sleep(0)
    await engine.aclose()
    with pytest.raises(EngineError, match="closed"):
        await long
    await asyncio.gather(waiting, return_exceptions=True)  # answered or refused, but never left hanging
    await engine.aclose()
    with pytest.raises(EngineError, match="closed"):
        await engine.generate(PROMPT, max_tokens=1, stop=Stop(), sampling=SAMPLING)
    with pytest.raises(EngineError, match="closed"):
        await engine.score(PROMPT, [[1]])
    with pytest.raises(EngineError, match="closed"):
        await anext(engine.stream(PROMPT, max_tokens=1, stop=Stop(), sampling=SAMPLING))
