"""Concurrent calls on the transformers engine share forward passes, and get the same results as alone."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Cache

from semanticspec.engines.runtime import generation as runtime_generation
from semanticspec.engines.runtime.generation import DecodeCall
from semanticspec.engines.transformers.engine import TransformersEngine
from semanticspec.engines.transformers.model_runner import ForwardOutput, ModelRunner
from tests.support.batches import CALLS, TEXT, check_equal, generate
from tests.support.subjects import Subject, load, transformers_subject

PADDED = ("llama", "qwen2", "granite-scaled", "gpt2")


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Records the number of rows of every decoding pass; a turn is one token."""
    monkeypatch.setattr(runtime_generation, "TURN_S", 0)
    counts: list[int] = []
    forward = ModelRunner.forward

    def record(self: ModelRunner, token_ids: Tensor, cache: Cache, *more: Any) -> ForwardOutput:
        if token_ids.shape[1] == 1:
            counts.append(token_ids.shape[0])
        return forward(self, token_ids, cache, *more)

    monkeypatch.setattr(ModelRunner, "forward", record)
    return counts


@pytest.mark.parametrize("name", PADDED)
async def test_concurrent_calls_equal_serial_calls(
    name: str, model_folders: dict[str, Path], rows: list[int]
) -> None:
    engine = load(model_folders[name])
    assert engine._runner.supports_padding
    together = await asyncio.gather(*(generate(engine, length, n) for length, n in CALLS))
    shared = list(rows)
    await engine.reset_cache()
    del rows[:]
    for (length, n), generations in zip(CALLS, together, strict=True):
        check_equal(generations, await generate(engine, length, n))
    assert max(shared) > max(n for _, n in CALLS)
    assert len(shared) < len(rows) / 2


async def test_models_without_padding_support_decode_call_by_call(
    model_folders: dict[str, Path], rows: list[int]
) -> None:
    subject = transformers_subject("lfm2-recurrent", model_folders["lfm2-recurrent"])
    assert isinstance(subject.engine, TransformersEngine)
    assert not subject.engine._runner.supports_padding
    together = await asyncio.gather(*(generate(subject.engine, length, n) for length, n in CALLS))
    assert set(rows) == {1}
    for (length, n), generations in zip(CALLS, together, strict=True):
        check_equal(generations, await generate(subject.engine, length, n))


async def test_a_call_in_the_shared_batch_leaves_its_kv_cache(
    model_folders: dict[str, Path], llama: Subject, rows: list[int]
) -> None:
    """Its output is in the prefix cache afterwards, so that a continuation prefills one token only."""
    engine = load(model_folders["llama"])
    both = await asyncio.gather(generate(engine, 17, 1), generate(engine, 5, 1))
    assert 2 in rows
    del rows[:]
    for length, (generation,) in zip((17, 5), both, strict=True):
        context = [*TEXT[:length], *generation.token_ids]
        (score,) = await engine.score(context, [[7]])
        wanted = llama.logprobs(context)[-1, 7]
        assert score.logprobs[0] == pytest.approx(float(wanted), abs=1e-4)


async def test_a_request_continues_from_one_of_several_scored_continuations(
    model_folders: dict[str, Path], llama: Subject, passes: list[int]
) -> None:
    engine = load(model_folders["llama"])
    candidates = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    await engine.score(TEXT, candidates, request_id="r")
    del passes[:]
    for chosen in (candidates[1], candidates[0]):
        context = [*TEXT, *chosen]
        (score,) = await engine.score(context, [[7, 7]], request_id="r")
        wanted = llama.logprobs([*context, 7])[-2:, 7]
        torch.testing.assert_close(torch.tensor(score.logprobs), wanted, atol=1e-4, rtol=0)
    assert passes == [2, 2]


async def test_calls_join_and_are_cancelled(model_folders: dict[str, Path], rows: list[int]) -> None:
    """Some calls are cancelled while they decode, and others join."""
    engine = load(model_folders["llama"])
    first = [asyncio.ensure_future(generate(engine, length, n, 200)) for length, n in CALLS]
    while len(rows) < 8:
        await asyncio.sleep(0.001)
    for index in (0, 1, 4):
        first[index].cancel()
    later = await asyncio.gather(*(generate(engine, length + 1, n) for length, n in CALLS))
    ended = await asyncio.gather(*first, return_exceptions=True)
    assert [isinstance(result, asyncio.CancelledError) for result in ended] == [
        True,
        True,
        False,
        False,
        True,
        False,
    ]
    await engine.reset_cache()
    for (length, n), generations, result in zip(CALLS, later, ended, strict=True):
        check_equal(generations, await generate(engine, length + 1, n))
        if not isinstance(result, BaseException):
            check_equal(result, await generate(engine, length, n, 200))
    assert engine._batch.num_calls == 0


@pytest.mark.usefixtures("rows")
async def test_a_failed_pass_fails_its_calls_and_no_later_call(
    model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(model_folders["llama"])
    layer = engine._runner._base.layers[1]
    forward = layer.forward

    def fails(states: Tensor, *arguments: Any, **options: Any) -> Any:
        if states.shape[0] > 4:
            raise RuntimeError("out of memory")
        return forward(states, *arguments, **options)

    monkeypatch.setattr(layer, "forward", fails)
    results = await asyncio.gather(
        *(generate(engine, length, n, 50) for length, n in CALLS), return_exceptions=True
    )
    assert any("out of memory" in str(result) for result in results)
    monkeypatch.setattr(layer, "forward", forward)
    expected = await generate(load(model_folders["llama"]), 17, 3)
    check_equal(await generate(engine, 17, 3), expected)
    assert engine._batch.num_calls == 0


@pytest.mark.usefixtures("rows")
async def test_a_failure_of_one_call_fails_no_other(
    model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(model_folders["llama"])
    draw = DecodeCall._sample

    def fails(self: DecodeCall, states: Tensor, logits: Tensor) -> None:
        if len(self._all_rows) == 4 and len(self._all_rows[0].token_ids) == 3:
            raise ValueError("not a number")
        draw(self, states, logits)

    monkeypatch.setattr(DecodeCall, "_sample", fails)
    results = await asyncio.gather(
        *(generate(engine, length, n) for length, n in CALLS), return_exceptions=True
    )
    failed = [str(result) for result in results if isinstance(result, BaseException)]
    assert len(failed) == 1
    assert "not a number" in failed[0]
    for (length, n), result in zip(CALLS, results, strict=True):
        if not isinstance(result, BaseException):
            check_equal(result, await generate(engine, length, n))
