"""A model exported as a GGUF file gives the same output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from semanticspec.demo.gguf import write_gguf
from semanticspec.engines.transformers import loading
from semanticspec.records import Sampling, Stop
from tests.support.subjects import CONTEXT_TOKENS, Subject, load


async def test_a_gguf_file_gives_the_output_of_its_source(
    llama: Subject, model_folders: dict[str, Path], tmp_path: Path
) -> None:
    write_gguf(model_folders["llama"], tmp_path / "llama.gguf")
    engine = load(tmp_path / "llama.gguf")
    context, sampling = [3, 14, 15, 9, 26, 5], Sampling(0.8, 0.9)
    assert engine.info.max_context_tokens == CONTEXT_TOKENS
    (generation,) = await engine.generate(
        context, max_tokens=20, stop=Stop(), sampling=sampling, seed=3, request_id="gguf"
    )
    assert generation.token_ids == llama.continuation(context, 20, sampling, seed=3)
    (score,) = await engine.score(context, [generation.token_ids])
    torch.testing.assert_close(torch.tensor(score.logprobs), torch.tensor(generation.logprobs))
    await engine.aclose()


async def test_weights_are_dequantized_once(
    model_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """The second start reads what the first one kept, and gives the same numbers."""
    monkeypatch.setenv("SEMANTICSPEC_CACHE", str(tmp_path / "cache"))
    write_gguf(model_folders["llama"], tmp_path / "llama.gguf")
    scores = []
    for start in range(2):
        caplog.clear()
        engine = load(tmp_path / "llama.gguf")
        assert ("dequantizing llama.gguf; this happens once per file" in caplog.text) == (start == 0)
        scores += await engine.score([3, 14, 15], [[9, 26, 5]])
        await engine.aclose()
    assert scores[0].logprobs == scores[1].logprobs
    assert load(tmp_path / "llama.gguf").info.revision == engine.info.revision


async def test_weights_of_large_files_are_not_kept(
    model_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEMANTICSPEC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(loading, "_MAX_KEPT_FILE_BYTES", 1000)
    write_gguf(model_folders["llama"], tmp_path / "llama.gguf")
    await load(tmp_path / "llama.gguf").aclose()
    assert not (tmp_path / "cache").exists()
