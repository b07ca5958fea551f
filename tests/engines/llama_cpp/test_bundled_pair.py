"""The bundled pair on llama.cpp: exported files, pairs of two engines, and probe verdicts.

Tolerance of p: 1e-4 with a KV cache in float32 (sums in another order). Full measurement: docs/reference/engines.md.
"""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from experiments.engine_agreement.recordings import Recordings
from semanticspec import demo
from semanticspec.benchmark.baselines.transformers_generate import HuggingFaceAssisted
from semanticspec.commands.main import app
from semanticspec.config import DecodingConfig
from semanticspec.decoding.generate import generate
from semanticspec.demo.gguf import write_pair
from semanticspec.demo.stories import problems
from semanticspec.loading import load_pair
from semanticspec.problems.sources import ProblemText
from semanticspec.text.vocabulary import Vocabulary
from semanticspec.training.data.storage import Collection

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None,
    reason="llama-cpp-python is not installed (extra llama-cpp)",
)
PROMPT = "Mia has 14 pens. Mia buys 23 more. How many pens does Mia have?"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Segments recorded with the transformers engine."""
    path = tmp_path_factory.mktemp("recorded") / "segments.jsonl"
    pair = load_pair(device="cpu")
    listed = [ProblemText(problem.text, problem.text) for problem in problems("test", 40)]
    asyncio.run(Recordings(path).extend(pair, listed, DecodingConfig(), 40))
    asyncio.run(pair.aclose())
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_pair(tmp_path_factory.mktemp("pair"))


def test_the_file_embeds_the_tokenizer(files: tuple[Path, Path]) -> None:
    found, wanted = Vocabulary.load(str(files[0])), Vocabulary.load(str(demo.target_path()))
    assert found.fingerprint == wanted.fingerprint
    assert (found.end_ids, found.end_id, found.think_end_id) == (
        wanted.end_ids,
        wanted.end_id,
        wanted.think_end_id,
    )
    assert found.render_prompt(PROMPT) == wanted.render_prompt(PROMPT)
    assert found.added_tokens == wanted.added_tokens


@pytest.mark.parametrize("engines", [("llama-cpp", "llama-cpp"), ("transformers", "llama-cpp")])
def test_all_combinations_of_engines_give_the_same_text(
    engines: tuple[str, str], files: tuple[Path, Path]
) -> None:
    def answer(target_engine: str, draft_engine: str) -> tuple[int, ...]:
        pair = load_pair(
            *map(str, files),
            target_probe="bundled",
            draft_probe="bundled",
            target_engine=target_engine,
            draft_engine=draft_engine,
            dtype="float32",
        )
        return generate(pair, PROMPT, DecodingConfig(seed=3)).token_ids

    assert answer(*engines) == answer("transformers", "transformers")


def test_assisted_generation_loads_the_weights_of_a_gguf_draft(
    files: tuple[Path, Path],
) -> None:
    def answer(draft_engine: str) -> tuple[int, ...]:
        async def solved() -> tuple[int, ...]:
            pair = load_pair(
                *map(str, files),
                target_engine="transformers",
                draft_engine=draft_engine,
                dtype="float32",
            )
            try:
                result = await HuggingFaceAssisted(pair, DecodingConfig()).solve(PROMPT, 3)
            finally:
                await pair.aclose()
            assert result.stats.draft_tokens > 0
            return result.token_ids

        return asyncio.run(solved())

    assert answer("llama-cpp") == answer("transformers")


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float16", 0.05)])
def test_probes_give_the_same_verdicts(
    dtype: str, tolerance: float, files: tuple[Path, Path], recorded: Path
) -> None:
    pair = load_pair(
        *map(str, files),
        target_probe="bundled",
        draft_probe="bundled",
        target_engine="llama-cpp",
        draft_engine="llama-cpp",
        dtype=dtype,
    )
    try:
        agreement = asyncio.run(Recordings(recorded).compare(pair, 40))
    finally:
        asyncio.run(pair.aclose())
    assert agreement.num_segments == 40
    assert agreement.share >= 0.95
    assert max(*agreement.target, *agreement.draft) < tolerance


@pytest.mark.slow
def test_training_data_equals_that_of_transformers(files: tuple[Path, Path], tmp_path: Path) -> None:
    """Contexts and segments are equal token for token, and states are close."""

    def collected(name: str, *arguments: str) -> Collection:
        out = tmp_path / name
        extent = ["--num-problems", "2", "--samples", "4", "--max-contexts", "2", "--dtype", "float32"]
        done = CliRunner().invoke(app, ["probe", "collect", "--out", str(out), *extent, *arguments])
        assert done.exit_code == 0, done.output
        return Collection(out)

    pair = ["--target", str(files[0]), "--draft", str(files[1]), "--engine", "llama-cpp"]
    shards = zip(collected("llama", *pair), collected("transformers"), strict=True)
    for found, wanted in shards:
        assert wanted.contexts
        assert found.contexts == wanted.contexts
        texts = [(segment.author, segment.text, segment.count) for segment in wanted.segments]
        assert [(segment.author, segment.text, segment.count) for segment in found.segments] == texts
        torch.testing.assert_close(found.target_states, wanted.target_states, atol=1e-3, rtol=0)
        torch.testing.assert_close(found.draft_states, wanted.draft_states, atol=1e-3, rtol=0)
