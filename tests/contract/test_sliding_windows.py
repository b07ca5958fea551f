"""Sliding windows: the prefix is reused as in models without them, and the output is that of transformers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GptOssConfig,
    Llama4TextConfig,
    MistralConfig,
    PreTrainedConfig,
    Qwen2Config,
)

from semanticspec import generate
from semanticspec.config import with_optimizations
from semanticspec.decoding.pair import Model, Pair
from semanticspec.engines.transformers.kv_cache import GrowingLayer
from semanticspec.records import GREEDY, Sampling, Stop
from tests.support.scripted_pairs import config
from tests.support.subjects import SIZES, Subject, load, subject_with_oracle
from tests.support.vocabularies import make_vocabulary

WINDOW = 8
CONTEXT = [3, 14, 15, 9, 26, 5, 35, 8, 9, 7, 9, 3, 23]
SEGMENT = [46, 2, 6, 43, 3, 38, 32, 7, 9, 50, 28, 8]
SAMPLING = Sampling(temperature=0.8, top_p=0.9)
TOLERANCE = 1e-4
_HEAD = {"head_dim": 8}
_EXPERTS = {"num_local_experts": 2, "num_experts_per_tok": 1}
MODELS: dict[str, Callable[[], PreTrainedConfig]] = {
    "all layers": lambda: MistralConfig(**SIZES, sliding_window=WINDOW),
    "every other layer": lambda: Gemma3TextConfig(
        **SIZES, **_HEAD, sliding_window=WINDOW, layer_types=["sliding_attention", "full_attention"]
    ),
    "full layer first": lambda: Qwen2Config(
        **SIZES, sliding_window=WINDOW, use_sliding_window=True, max_window_layers=1
    ),
    "capped logits": lambda: Gemma2Config(**SIZES, **_HEAD, sliding_window=WINDOW),
    "attention sinks": lambda: GptOssConfig(**SIZES, **_HEAD, **_EXPERTS, sliding_window=WINDOW),
    "chunks": lambda: Llama4TextConfig(
        **SIZES, **_HEAD, **_EXPERTS, attention_chunk_size=WINDOW, intermediate_size_mlp=64
    ),
}


@pytest.fixture(scope="module", params=MODELS)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    torch.manual_seed(5)
    folder = tmp_path_factory.mktemp("model")
    AutoModelForCausalLM.from_config(MODELS[request.param]()).save_pretrained(folder)
    return subject_with_oracle(request.param, folder, lambda: load(folder))


async def test_accepted_and_rejected_segments_are_prefilled_once(subject: Subject, passes: list[int]) -> None:
    engine: Any = subject.fresh()
    del passes[:]  # of the check at load time
    context, options = list(CONTEXT), {"request_id": "r"}
    await engine.score(context, [SEGMENT], **options)
    assert sum(passes) == len(CONTEXT) + len(SEGMENT)
    context += SEGMENT  # accepted
    await engine.score(context, [SEGMENT[::-1]], **options)
    assert sum(passes) == len(CONTEXT) + 2 * len(SEGMENT)
    (written,) = await engine.generate(
        context, max_tokens=5, stop=Stop(), sampling=GREEDY, **options
    )  # rejected
    assert sum(passes) == len(CONTEXT) + 2 * len(SEGMENT) + 4
    assert written.token_ids == subject.continuation(context, 5, GREEDY)


async def test_scores_and_texts_far_beyond_the_window(subject: Subject) -> None:
    engine, context = subject.engine, list(CONTEXT)
    for turn in range(6):
        segment = [(7 * turn + 3 * i) % 61 for i in range(1 + 3 * turn)]
        (score,) = await engine.score(context, [segment], request_id="r")
        rows = subject.logprobs([*context, *segment])[len(context) - 1 : -1]
        expected = rows.gather(1, torch.tensor(segment)[:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(score.logprobs), expected, atol=TOLERANCE, rtol=0)
        context += segment[: len(segment) // 2]
        (written,) = await engine.generate(
            context, max_tokens=4, stop=Stop(), sampling=SAMPLING, seed=turn, request_id="r"
        )
        assert written.token_ids == subject.continuation(context, 4, SAMPLING, turn)
        context += written.token_ids


async def test_rows_of_different_lengths_decode_together(subject: Subject) -> None:
    contexts = [CONTEXT, CONTEXT[:5], [*CONTEXT, *SEGMENT]]
    written = await asyncio.gather(
        *(
            subject.engine.generate(context, n=2, max_tokens=20, stop=Stop(), sampling=SAMPLING, seed=2)
            for context in contexts
        )
    )
    for context, rows in zip(contexts, written, strict=True):
        for sample, row in enumerate(rows):
            assert row.token_ids == subject.continuation(context, 20, SAMPLING, 2, sample)


def test_attention_sees_the_window_only() -> None:
    layer = GrowingLayer(WINDOW)
    for end in range(1, 30):
        assert layer.get_mask_sizes(1) == (min(end, WINDOW), max(0, end - WINDOW))
        keys, _ = layer.update(torch.full((1, 1, 1, 2), end), torch.zeros(1, 1, 1, 2))
        assert keys[0, 0, :, 0].tolist() == list(range(max(1, end - WINDOW + 1), end + 1))
    assert layer.get_mask_sizes(5) == (WINDOW - 1 + 5, 29 - WINDOW + 1)


def test_a_request_prefills_little_more_than_it_writes(tmp_path: Path, passes: list[int]) -> None:
    """With all default optimizations. Before, every call prefilled its whole context."""
    small = SIZES | {"vocab_size": 9}
    for name, seed in (("target", 1), ("draft", 2)):
        torch.manual_seed(seed)
        window = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
        model = AutoModelForCausalLM.from_config(Gemma3TextConfig(**small | _HEAD | window))
        model.save_pretrained(tmp_path / name)
    vocabulary = make_vocabulary()
    pair = Pair(Model(load(tmp_path / "target"), vocabulary), Model(load(tmp_path / "draft"), vocabulary))
    del passes[:]
    decoding = with_optimizations(config("never", max_new_tokens=120), ["default"])
    num_tokens = 0
    for seed in range(4):
        result = generate(pair, "abcdabcd", replace(decoding, seed=seed))
        num_tokens += result.stats.num_tokens
    assert num_tokens > 100, "the test needs longer outputs"
    assert sum(passes) < 12 * num_tokens
