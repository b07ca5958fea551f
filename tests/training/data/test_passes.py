"""What collecting costs: forward passes of small transformers models, and tokens of scripted ones."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig

from semanticspec.decoding.pair import Model, Pair
from semanticspec.engines.runtime import generation
from semanticspec.engines.transformers.engine import TransformersEngine
from semanticspec.engines.transformers.model_runner import ModelRunner
from semanticspec.problems.sources import ProblemText
from semanticspec.training.data.collect import collect
from semanticspec.training.data.settings import CollectConfig
from tests.support.collecting import CONFIG, make_pair, make_vocabulary
from tests.support.tiny_models import SIZES, save_model

PROBLEMS = [ProblemText(f"problem {i}", "ab" * (1 + i % 3), "a\n\nb\n\nab\n\n</think>") for i in range(16)]
ONE_CONTEXT = CollectConfig(
    num_samples=6, max_contexts=1, one_trace=True, loop_share=0, max_context_segments=4, max_segment_tokens=8
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    save_model(path, LlamaConfig(**SIZES | {"vocab_size": 6}, max_position_embeddings=128))
    return path


def passes(
    folder: Path, out: Path, concurrency: int | None, monkeypatch: pytest.MonkeyPatch
) -> dict[str, list[int]]:
    """The lengths of all forward passes: `decode` in rows, `prefill` in tokens of a row."""
    found: dict[str, list[int]] = {"decode": [], "prefill": []}
    forward = ModelRunner.forward

    def counted(self: ModelRunner, token_ids: Any, *rest: Any) -> Any:
        rows, length = token_ids.shape
        if length == 1:
            found["decode"].append(rows)
        else:
            found["prefill"].append(rows * length)
        return forward(self, token_ids, *rest)

    async def run() -> None:
        pair = Pair(*(Model(TransformersEngine.load(str(folder)), make_vocabulary()) for _ in range(2)))
        with monkeypatch.context() as patch:
            patch.setattr(ModelRunner, "forward", counted)
            patch.setattr(generation, "TURN_S", 0.0)  # a pass of a real model takes that long
            try:
                await collect(pair, PROBLEMS, ONE_CONTEXT, out, concurrency=concurrency)
            finally:
                await pair.aclose()

    asyncio.run(run())
    return found


def test_problems_share_forward_passes(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default all 16 problems are decoded together: 16 contexts with 6 samples each."""
    alone = passes(folder, tmp_path / "alone", 1, monkeypatch)
    four = passes(folder, tmp_path / "four", 4, monkeypatch)
    default = passes(folder, tmp_path / "default", None, monkeypatch)
    assert max(alone["decode"]) <= 6
    assert max(default["decode"]) > 24
    assert len(default["decode"]) < len(four["decode"]) < len(alone["decode"])
    assert 4 * len(default["decode"]) < len(alone["decode"])


def test_all_segments_of_a_context_are_scored_in_few_passes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prefill of the context by each model, and one pass over all distinct segments."""
    found = passes(folder, tmp_path, 1, monkeypatch)
    assert len(found["prefill"]) <= 3 * len(PROBLEMS)


def test_traces_are_written_only_as_far_as_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts the tokens that the target streams as traces, with and without a limit."""
    problems = [ProblemText(f"number {i}", "a") for i in range(40)]
    whole = replace(CONFIG, one_trace=True, max_contexts=1, loop_share=0)
    written = {}
    for name, config in (("whole", whole), ("needed", replace(whole, max_context_segments=4))):
        pair, tokens = make_pair(), [0]
        stream = pair.target.engine.stream

        async def counted(*args: Any, stream: Any = stream, tokens: Any = tokens, **options: Any) -> Any:
            async for item in stream(*args, **options):
                tokens[0] += len(item.token_ids) if type(item).__name__ == "TokenChunk" else 0
                yield item

        monkeypatch.setattr(pair.target.engine, "stream", counted)
        asyncio.run(collect(pair, problems, config, tmp_path / name))
        written[name] = tokens[0]
    assert written["needed"] < 0.6 * written["whole"]
