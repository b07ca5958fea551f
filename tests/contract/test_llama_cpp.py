"""What only llama.cpp does: passes shared by calls of all kinds, one buffer for all, and files it refuses.

Tolerance: float32 sums in another order, 1e-4; with keys and values in float16 (llama.cpp's own default) 0.02.
"""

from __future__ import annotations

import asyncio
import mmap
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from semanticspec.engines.llama_cpp import context as llama_cpp_context
from semanticspec.engines.llama_cpp.context import LlamaContext
from semanticspec.engines.llama_cpp.engine import LlamaCppEngine
from semanticspec.engines.llama_cpp.options import LlamaOptions
from semanticspec.engines.runtime import generation as writing
from semanticspec.errors import ConfigError, EngineError, ModelError
from semanticspec.records import Stop
from tests.support.batches import CALLS, SAMPLING, TEXT, check_equal, write
from tests.support.subjects import Subject, load_llama_cpp, pool_of

SEGMENT = [9, 7, 9, 3, 23, 8, 46, 2, 6, 43]


@pytest.fixture
def engine(llama_file: Path) -> LlamaCppEngine:
    return load_llama_cpp(llama_file)


def check_nothing_taken(engine: LlamaCppEngine) -> None:
    """All that calls took is given back: what is left are the kept sequences."""
    room, context = engine._parts.room, engine._parts.context
    assert (room._inside, room._waiting, engine._parts.batch._waiting) == ([], [], [])
    assert context.num_free_sequences == llama_cpp_context.MAX_SEQUENCES - len(room.pool)
    assert all(sequence.in_order() and not sequence.busy for sequence in room.pool._sequences)


@pytest.mark.parametrize("turn_s", [0, 0.02])
async def test_calls_at_once_equal_calls_in_turn(
    engine: LlamaCppEngine, passes: list[int], turn_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "TURN_S", turn_s)
    together = await asyncio.gather(*(write(engine, length, n) for length, n in CALLS))  # type: ignore[arg-type]
    shared = len(passes)
    await engine.forget()
    del passes[:]
    for (length, n), generations in zip(CALLS, together, strict=True):
        check_equal(generations, await write(engine, length, n))  # type: ignore[arg-type]
    assert shared < len(passes) / 2
    check_nothing_taken(engine)


async def test_reading_and_writing_share_passes(
    engine: LlamaCppEngine, llama: Subject, passes: list[int]
) -> None:
    text = asyncio.create_task(
        engine.generate(TEXT, max_tokens=60, stop=Stop(), sampling=SAMPLING, seed=1, request_id="text")
    )
    while len(passes) < 5:
        await asyncio.sleep(0.001)
    del passes[:]
    scores = await asyncio.gather(*(engine.score([first, *TEXT], [SEGMENT]) for first in range(4)))
    assert max(passes) > 1 + len(TEXT) + len(SEGMENT), "no pass held more than one call's tokens"
    (generation,) = await text
    assert generation.token_ids == llama.continuation(TEXT, 60, SAMPLING, seed=1)
    for first, (score,) in enumerate(scores):
        (alone,) = await llama.engine.score([first, *TEXT], [SEGMENT])
        torch.testing.assert_close(score.pooled_state, alone.pooled_state, atol=1e-4, rtol=0)
    check_nothing_taken(engine)


async def test_calls_come_and_go(engine: LlamaCppEngine, passes: list[int]) -> None:
    """Some are cancelled in the middle, others join then; what they took is given back."""
    first = [asyncio.ensure_future(write(engine, length, n, 200)) for length, n in CALLS]  # type: ignore[arg-type]
    while len(passes) < 8:
        await asyncio.sleep(0.001)
    for index in (0, 1, 4):
        first[index].cancel()
    later = await asyncio.gather(*(write(engine, length + 1, n) for length, n in CALLS))  # type: ignore[arg-type]
    await asyncio.gather(*first, return_exceptions=True)
    await engine.forget()
    for (length, n), generations in zip(CALLS, later, strict=True):
        check_equal(generations, await write(engine, length + 1, n))  # type: ignore[arg-type]
    check_nothing_taken(engine)


async def test_a_full_buffer_makes_calls_wait_and_fails_none(llama_file: Path, llama: Subject) -> None:
    """Room for one call of this size and a half; kept sequences give way, and no answer changes."""
    engine = load_llama_cpp(llama_file, context_tokens=100, cache_tokens=150)
    contexts = [[first, *TEXT] for first in range(6)]
    written = await asyncio.gather(
        *(
            engine.generate(context, max_tokens=70, stop=Stop(), sampling=SAMPLING, seed=1)
            for context in contexts
        )
    )
    for context, (generation,) in zip(contexts, written, strict=True):
        assert generation.token_ids == llama.continuation(context, 70, SAMPLING, seed=1)
    several = await engine.generate(TEXT, n=5, max_tokens=60, stop=Stop(), sampling=SAMPLING, seed=1)
    for sample, generation in enumerate(several):
        assert generation.token_ids == llama.continuation(TEXT, 60, SAMPLING, 1, sample)
    check_nothing_taken(engine)
    assert pool_of(engine).size() <= 150


async def test_what_cannot_be_cut_is_read_again(
    engine: LlamaCppEngine, llama: Subject, monkeypatch: pytest.MonkeyPatch, passes: list[int]
) -> None:
    """llama.cpp says whether it could remove tokens; where it could not, nothing of the sequence is used."""
    await engine.score(TEXT, [SEGMENT], request_id="r")
    library = engine._parts.context._llama

    class Unwilling:
        def __getattr__(self, name: str) -> Any:
            return getattr(library, name)

        def llama_memory_seq_rm(self, memory: Any, sequence: int, start: int, end: int) -> bool:
            return start == 0 and bool(library.llama_memory_seq_rm(memory, sequence, start, end))

    monkeypatch.setattr(engine._parts.context, "_llama", Unwilling())
    del passes[:]
    (generation,) = await engine.generate(
        [*TEXT, 5, 6], max_tokens=8, stop=Stop(), sampling=SAMPLING, seed=1, request_id="r"
    )
    assert passes[0] == len(TEXT) + 2
    assert generation.token_ids == llama.continuation([*TEXT, 5, 6], 8, SAMPLING, seed=1)


async def test_a_failed_pass_fails_those_in_it_and_no_later_call(
    engine: LlamaCppEngine, llama: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = LlamaContext.decode

    def fails(self: LlamaContext, token_ids: Any, *more: Any) -> Any:
        if len(token_ids) == 4:
            decode(self, token_ids, *more)  # read, and then something goes wrong
            raise EngineError("llama.cpp failed while it worked (code -3), say")
        return decode(self, token_ids, *more)

    monkeypatch.setattr(LlamaContext, "decode", fails)
    with pytest.raises(EngineError, match="code -3"):
        await engine.generate(TEXT, n=4, max_tokens=8, stop=Stop(), sampling=SAMPLING)
    monkeypatch.setattr(LlamaContext, "decode", decode)
    check_nothing_taken(engine)
    (generation,) = await engine.generate(TEXT, max_tokens=8, stop=Stop(), sampling=SAMPLING)
    assert generation.token_ids == llama.continuation(TEXT, 8, SAMPLING)


async def test_memory_does_not_grow(engine: LlamaCppEngine) -> None:
    """500 calls of several samples; what 100 of them left is all that is ever taken."""
    taken: list[int] = []
    for index in range(500):
        await engine.generate(
            [index % 61, index // 61, *TEXT], n=1 + index % 3, max_tokens=4, stop=Stop(), sampling=SAMPLING
        )
        taken.append(resident_bytes())
    assert taken[-1] - taken[100] < 4 * 2**20
    check_nothing_taken(engine)


def resident_bytes() -> int:
    """Of this process, where the system says so."""
    file = Path("/proc/self/statm")
    return int(file.read_text().split()[1]) * mmap.PAGESIZE if file.is_file() else 0


async def test_half_precision_is_near(llama_file: Path, llama: Subject) -> None:
    engine = LlamaCppEngine.load(str(llama_file), options=LlamaOptions(device="cpu", threads=1))
    (score,) = await engine.score(TEXT, [SEGMENT])
    (exact,) = await llama.engine.score(TEXT, [SEGMENT])
    torch.testing.assert_close(score.pooled_state, exact.pooled_state, atol=0.02, rtol=0)
    torch.testing.assert_close(torch.tensor(score.logprobs), torch.tensor(exact.logprobs), atol=0.02, rtol=0)


async def test_the_context_is_as_long_as_asked_for(llama_file: Path) -> None:
    engine = load_llama_cpp(llama_file, context_tokens=64)
    with pytest.raises(EngineError, match="context of 64 tokens"):
        await engine.generate(TEXT, max_tokens=60, stop=Stop(), sampling=SAMPLING)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "bfloat16"}, "dtype is 'bfloat16'.*auto, float32, float16"),
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"threads": 0}, "threads is 0; expected 1"),
        ({"context_tokens": 5000}, "context_tokens is 5000, but the model was trained for 4096"),
        ({"context_tokens": 100, "cache_tokens": 99}, "cache_tokens is 99, but one call may take 100"),
    ],
)
def test_options_that_cannot_work_are_refused(llama_file: Path, options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LlamaCppEngine.load(str(llama_file), options=LlamaOptions(**options))


def test_files_that_are_none(tmp_path: Path, llama_file: Path) -> None:
    file = tmp_path / "model.gguf"
    with pytest.raises(ModelError, match="there is no file"):
        load_llama_cpp(file)
    file.write_bytes(b"something else")
    with pytest.raises(ModelError, match="is not a GGUF file"):
        load_llama_cpp(file)
    file.write_bytes(llama_file.read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"llama\.cpp cannot load"):
        load_llama_cpp(file)


def test_without_its_package(llama_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(EngineError, match=r"pip install semanticspec\[llama-cpp\]"):
        load_llama_cpp(llama_file)
