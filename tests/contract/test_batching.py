"""Calls that decode at the same time share the transformers engine's passes, and nobody's answer shows it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Cache

from semanticspec.engines.runtime import generation as writing
from semanticspec.engines.runtime.generation import Writing
from semanticspec.engines.transformers.engine import TransformersEngine
from semanticspec.engines.transformers.network import Network
from tests.support.batches import CALLS, TEXT, check_equal, write
from tests.support.subjects import Subject, load, transformers_subject

# Context lengths and numbers of samples: longer and shorter ones join, and end at different times.
MASKED = ("llama", "qwen2", "granite-scaled", "gpt2")


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows of every pass over single tokens from here on; turns are one token long."""
    monkeypatch.setattr(writing, "TURN_S", 0)
    counts: list[int] = []
    run = Network.run

    def counted(self: Network, token_ids: Tensor, cache: Cache, *more: Any) -> tuple[Tensor, Tensor | None]:
        if token_ids.shape[1] == 1:
            counts.append(token_ids.shape[0])
        return run(self, token_ids, cache, *more)

    monkeypatch.setattr(Network, "run", counted)
    return counts


@pytest.mark.parametrize("name", MASKED)
async def test_calls_at_once_equal_calls_in_turn(
    name: str, model_folders: dict[str, Path], rows: list[int]
) -> None:
    engine = load(model_folders[name])
    assert engine._network.masks
    together = await asyncio.gather(*(write(engine, length, n) for length, n in CALLS))
    shared = list(rows)
    await engine.forget()
    del rows[:]
    for (length, n), generations in zip(CALLS, together, strict=True):
        check_equal(generations, await write(engine, length, n))
    assert max(shared) > max(n for _, n in CALLS)
    assert len(shared) < len(rows) / 2


async def test_models_without_masks_decode_call_by_call(
    model_folders: dict[str, Path], rows: list[int]
) -> None:
    subject = transformers_subject("mistral-sliding", model_folders["mistral-sliding"])
    assert isinstance(subject.engine, TransformersEngine)
    assert not subject.engine._network.masks
    together = await asyncio.gather(*(write(subject.engine, length, n) for length, n in CALLS))
    assert set(rows) == {1}
    for (length, n), generations in zip(CALLS, together, strict=True):
        check_equal(generations, await write(subject.engine, length, n))


async def test_a_call_that_joined_others_leaves_its_cache(
    model_folders: dict[str, Path], llama: Subject, rows: list[int]
) -> None:
    """What it wrote among others is in its own cache afterwards, and right: reading on needs one token more."""
    engine = load(model_folders["llama"])
    both = await asyncio.gather(write(engine, 17, 1), write(engine, 5, 1))
    assert 2 in rows
    del rows[:]
    for length, (generation,) in zip((17, 5), both, strict=True):
        context = [*TEXT[:length], *generation.token_ids]
        (score,) = await engine.score(context, [[7]])
        wanted = llama.logprobs(context)[-1, 7]
        assert score.logprobs[0] == pytest.approx(float(wanted), abs=1e-4)


async def test_one_of_several_scored_continuations_is_gone_on_from(
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


async def test_calls_come_and_go(model_folders: dict[str, Path], rows: list[int]) -> None:
    """Some are cancelled in the middle, others join then."""
    engine = load(model_folders["llama"])
    first = [asyncio.ensure_future(write(engine, length, n, 200)) for length, n in CALLS]
    while len(rows) < 8:
        await asyncio.sleep(0.001)
    for index in (0, 1, 4):
        first[index].cancel()
    later = await asyncio.gather(*(write(engine, length + 1, n) for length, n in CALLS))
    ended = await asyncio.gather(*first, return_exceptions=True)
    assert [isinstance(result, asyncio.CancelledError) for result in ended] == [
        True,
        True,
        False,
        False,
        True,
        False,
    ]
    await engine.forget()
    for (length, n), generations, result in zip(CALLS, later, ended, strict=True):
        check_equal(generations, await write(engine, length + 1, n))
        if not isinstance(result, BaseException):
            check_equal(result, await write(engine, length, n, 200))
    assert engine._batch.num_calls == 0


@pytest.mark.usefixtures("rows")
async def test_a_failed_pass_fails_those_in_it_and_no_later_call(
    model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(model_folders["llama"])
    layer = engine._network._base.layers[1]
    forward = layer.forward

    def fails(states: Tensor, *arguments: Any, **options: Any) -> Any:
        if states.shape[0] > 4:
            raise RuntimeError("out of memory, say")
        return forward(states, *arguments, **options)

    monkeypatch.setattr(layer, "forward", fails)
    results = await asyncio.gather(
        *(write(engine, length, n, 50) for length, n in CALLS), return_exceptions=True
    )
    assert any("out of memory, say" in str(result) for result in results)
    monkeypatch.setattr(layer, "forward", forward)
    expected = await write(load(model_folders["llama"]), 17, 3)
    check_equal(await write(engine, 17, 3), expected)
    assert engine._batch.num_calls == 0


@pytest.mark.usefixtures("rows")
async def test_a_calls_own_failure_is_its_own(
    model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load(model_folders["llama"])
    draw = Writing._draw

    def fails(self: Writing, states: Tensor, logits: Tensor) -> None:
        if len(self._all_rows) == 4 and len(self._all_rows[0].token_ids) == 3:
            raise ValueError("not a number, say")
        draw(self, states, logits)

    monkeypatch.setattr(Writing, "_draw", fails)
    results = await asyncio.gather(*(write(engine, length, n) for length, n in CALLS), return_exceptions=True)
    failed = [str(result) for result in results if isinstance(result, BaseException)]
    assert len(failed) == 1
    assert "not a number, say" in failed[0]
    for (length, n), result in zip(CALLS, results, strict=True):
        if not isinstance(result, BaseException):
            check_equal(result, await write(engine, length, n))
