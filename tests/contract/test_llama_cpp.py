"""What only the llama.cpp engine does: passes shared by all kinds of calls, one KV cache, and refused files.

Tolerance: 1e-4 for float32 sums in another order; 0.02 with a KV cache in float16 (llama.cpp's default).
"""

from __future__ import annotations

import asyncio
import mmap
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from semanticspec.engines.llama_cpp import model_runner
from semanticspec.engines.llama_cpp.engine import LlamaCppEngine
from semanticspec.engines.llama_cpp.model_runner import ModelRunner
from semanticspec.engines.llama_cpp.options import LlamaOptions
from semanticspec.engines.runtime import generation as runtime_generation
from semanticspec.errors import ConfigError, EngineError, ModelError
from semanticspec.records import Stop
from tests.support.batches import CALLS, SAMPLING, TEXT, check_equal, generate
from tests.support.subjects import Subject, load_llama_cpp, prefix_cache_of

SEGMENT = [9, 7, 9, 3, 23, 8, 46, 2, 6, 43]


@pytest.fixture
def engine(llama_file: Path) -> LlamaCppEngine:
    return load_llama_cpp(llama_file)


def check_all_released(engine: LlamaCppEngine) -> None:
    """Checks that only idle cached sequences are left."""
    space, context = engine._space, engine._runner
    assert (space._running, space._waiting, engine._batch._waiting) == ([], [], [])
    assert len(context._unused_sequences) == model_runner.MAX_SEQUENCES - len(space.prefix_cache)
    assert all(sequence.is_consistent() and not sequence.busy for sequence in space.prefix_cache._sequences)


@pytest.mark.parametrize("turn_s", [0, 0.02])
async def test_concurrent_calls_equal_serial_calls(
    engine: LlamaCppEngine, passes: list[int], turn_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_generation, "TURN_S", turn_s)
    together = await asyncio.gather(*(generate(engine, length, n) for length, n in CALLS))
    shared = len(passes)
    await engine.reset_cache()
    del passes[:]
    for (length, n), generations in zip(CALLS, together, strict=True):
        check_equal(generations, await generate(engine, length, n))
    assert shared < len(passes) / 2
    check_all_released(engine)


async def test_generate_and_score_calls_share_passes(
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
    check_all_released(engine)


async def test_calls_join_and_are_cancelled(engine: LlamaCppEngine, passes: list[int]) -> None:
    """Some calls are cancelled while they decode, and others join; all space is released."""
    first = [asyncio.ensure_future(generate(engine, length, n, 200)) for length, n in CALLS]
    while len(passes) < 8:
        await asyncio.sleep(0.001)
    for index in (0, 1, 4):
        first[index].cancel()
    later = await asyncio.gather(*(generate(engine, length + 1, n) for length, n in CALLS))
    await asyncio.gather(*first, return_exceptions=True)
    await engine.reset_cache()
    for (length, n), generations in zip(CALLS, later, strict=True):
        check_equal(generations, await generate(engine, length + 1, n))
    check_all_released(engine)


async def test_calls_wait_for_space_in_the_kv_cache(llama_file: Path, llama: Subject) -> None:
    """There is space for one and a half calls. Idle sequences are evicted, no call fails, no result changes."""
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
    check_all_released(engine)
    assert prefix_cache_of(engine).size() <= 150


async def test_sequences_that_cannot_be_truncated_are_prefilled_again(
    engine: LlamaCppEngine, llama: Subject, monkeypatch: pytest.MonkeyPatch, passes: list[int]
) -> None:
    """llama.cpp reports whether it could remove tokens. If not, nothing of the sequence is reused."""
    await engine.score(TEXT, [SEGMENT], request_id="r")
    library = engine._runner._llama

    class CannotTruncate:
        def __getattr__(self, name: str) -> Any:
            return getattr(library, name)

        def llama_memory_seq_rm(self, memory: Any, sequence: int, start: int, end: int) -> bool:
            return start == 0 and bool(library.llama_memory_seq_rm(memory, sequence, start, end))

    monkeypatch.setattr(engine._runner, "_llama", CannotTruncate())
    del passes[:]
    (generation,) = await engine.generate(
        [*TEXT, 5, 6], max_tokens=8, stop=Stop(), sampling=SAMPLING, seed=1, request_id="r"
    )
    assert passes[0] == len(TEXT) + 2
    assert generation.token_ids == llama.continuation([*TEXT, 5, 6], 8, SAMPLING, seed=1)


async def test_a_failed_pass_fails_its_calls_and_no_later_call(
    engine: LlamaCppEngine, llama: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = ModelRunner.forward

    def fails(self: ModelRunner, token_ids: Any, *more: Any) -> Any:
        if len(token_ids) == 4:
            forward(self, token_ids, *more)  # the tokens are in the KV cache when the pass fails
            raise EngineError("llama.cpp failed with code -3")
        return forward(self, token_ids, *more)

    monkeypatch.setattr(ModelRunner, "forward", fails)
    with pytest.raises(EngineError, match="code -3"):
        await engine.generate(TEXT, n=4, max_tokens=8, stop=Stop(), sampling=SAMPLING)
    monkeypatch.setattr(ModelRunner, "forward", forward)
    check_all_released(engine)
    (generation,) = await engine.generate(TEXT, max_tokens=8, stop=Stop(), sampling=SAMPLING)
    assert generation.token_ids == llama.continuation(TEXT, 8, SAMPLING)


async def test_memory_does_not_grow(engine: LlamaCppEngine) -> None:
    """After the first 100 of 500 calls, memory stays constant."""
    sizes: list[int] = []
    for index in range(500):
        await engine.generate(
            [index % 61, index // 61, *TEXT], n=1 + index % 3, max_tokens=4, stop=Stop(), sampling=SAMPLING
        )
        sizes.append(resident_bytes())
    assert sizes[-1] - sizes[100] < 4 * 2**20
    check_all_released(engine)


def resident_bytes() -> int:
    """Returns the memory of this process; 0 where /proc does not exist."""
    file = Path("/proc/self/statm")
    return int(file.read_text().split()[1]) * mmap.PAGESIZE if file.is_file() else 0


async def test_a_float16_kv_cache_is_close_to_float32(llama_file: Path, llama: Subject) -> None:
    engine = LlamaCppEngine.load(str(llama_file), options=LlamaOptions(device="cpu", threads=1))
    (score,) = await engine.score(TEXT, [SEGMENT])
    (exact,) = await llama.engine.score(TEXT, [SEGMENT])
    torch.testing.assert_close(score.pooled_state, exact.pooled_state, atol=0.02, rtol=0)
    torch.testing.assert_close(torch.tensor(score.logprobs), torch.tensor(exact.logprobs), atol=0.02, rtol=0)


async def test_context_tokens_limits_the_context(llama_file: Path) -> None:
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
def test_invalid_options_are_refused(llama_file: Path, options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LlamaCppEngine.load(str(llama_file), options=LlamaOptions(**options))


def test_files_that_are_not_models_are_refused(tmp_path: Path, llama_file: Path) -> None:
    file = tmp_path / "model.gguf"
    with pytest.raises(ModelError, match="there is no file"):
        load_llama_cpp(file)
    file.write_bytes(b"something else")
    with pytest.raises(ModelError, match="is not a GGUF file"):
        load_llama_cpp(file)
    file.write_bytes(llama_file.read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"llama\.cpp cannot load"):
        load_llama_cpp(file)


def test_a_missing_package_is_reported(llama_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(EngineError, match=r"pip install .*\[llama-cpp\]"):
        load_llama_cpp(llama_file)
