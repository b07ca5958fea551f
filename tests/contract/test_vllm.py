"""What only the vLLM engine does: it survives the death of its process, and batches requests."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from semanticspec.engines.base import Engine
from semanticspec.errors import EngineError
from semanticspec.records import GREEDY, Stop
from tests.support.subjects import load_vllm

pytest.importorskip("vllm")
CONTEXT = [3, 14, 15, 9, 26, 5, 35, 8]


@pytest.fixture
def engine(model_folders: dict[str, Path]) -> Iterator[Engine]:
    loaded = load_vllm(model_folders["vllm"])
    yield loaded
    asyncio.run(loaded.aclose())


def core_processes() -> list[int]:
    """Returns the ids of vLLM's engine processes, found by name."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                name = (folder / "cmdline").read_text()
                parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            if "EngineCore" in name and int(parent) == os.getpid():
                found.append(int(folder.name))
    return found


async def test_a_killed_process_raises_an_error(engine: Engine) -> None:
    before = core_processes()
    assert before
    writing = asyncio.create_task(
        engine.generate(CONTEXT, max_tokens=engine.info.max_context_tokens - 10, stop=Stop(), sampling=GREEDY)
    )
    await asyncio.sleep(0.3)
    assert not writing.done()
    for process in before:
        os.kill(process, signal.SIGKILL)
    with pytest.raises(EngineError, match="vLLM's engine process has ended"):
        await asyncio.wait_for(writing, 60)
    with pytest.raises(EngineError, match="vLLM's engine process has ended"):
        await asyncio.wait_for(engine.score(CONTEXT, [[1, 2]]), 60)


async def test_concurrent_requests_equal_serial_requests(engine: Engine) -> None:
    async def answer(number: int) -> tuple[int, ...]:
        (written,) = await engine.generate([number, *CONTEXT], max_tokens=30, stop=Stop(), sampling=GREEDY)
        return written.token_ids

    alone = [await answer(number) for number in range(8)]
    assert await asyncio.gather(*map(answer, range(8))) == alone
