"""A model exported as a GGUF file gives the same output."""

from __future__ import annotations

from pathlib import Path

import torch

from semanticspec.demo.gguf import write_gguf
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
