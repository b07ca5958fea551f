"""A cut head computes the same logits for fewer tokens; contexts may hold all tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config

from semanticspec.engines.base import Engine
from semanticspec.engines.llama_cpp.model_runner import ModelRunner
from semanticspec.errors import ConfigError, ModelError
from semanticspec.records import Generation, Sampling, Score, Stop
from tests.support.distributions import dense
from tests.support.subjects import SIZES, VOCABULARY, load, load_llama_cpp

KEPT = [0, 3, 4, 7, 8, 20, 33, 46, 47, 60]
CUT = sorted(set(range(VOCABULARY)) - set(KEPT))
CONTEXT = [3, 1, 50, 59, 8, 2]
WARM = Sampling(1.0, 1.0)


@dataclass(frozen=True)
class Loader:
    """Loads one model with or without a cut head."""

    load: Callable[..., Engine]

    def scores(self, continuation: list[int], **options: Any) -> Score:
        async def run() -> Score:
            engine = self.load(**options)
            (score,) = await engine.score(CONTEXT, [continuation], sampling=WARM, distributions=True)
            await engine.aclose()
            return score

        return asyncio.run(run())

    def generations(self, **options: Any) -> list[Generation]:
        async def run() -> list[Generation]:
            engine = self.load(**options)
            found = await engine.generate(
                CONTEXT, n=8, max_tokens=12, stop=Stop(), sampling=WARM, seed=5, distributions=True
            )
            await engine.aclose()
            return found

        return asyncio.run(run())


@pytest.fixture
def kept_file(tmp_path: Path) -> str:
    path = tmp_path / "kept.txt"
    path.write_text("".join(f"{token_id}\n" for token_id in reversed(KEPT)))
    return str(path)


@pytest.fixture(params=["llama", "qwen2", "granite-scaled", "gpt2", "llama-cpp"])
def loader(request: pytest.FixtureRequest, model_folders: dict[str, Path]) -> Iterator[Loader]:
    if request.param == "llama-cpp":
        file = request.getfixturevalue("llama_file")
        yield Loader(lambda **options: load_llama_cpp(file, **options))
    else:
        yield Loader(lambda **options: load(model_folders[request.param], **options))


def renormalized(rows: torch.Tensor) -> torch.Tensor:
    kept = torch.zeros(len(rows), VOCABULARY)
    kept[:, KEPT] = rows[:, KEPT]
    return kept / kept.sum(-1, keepdim=True)


def test_probabilities_are_those_of_the_kept_tokens(loader: Loader, kept_file: str) -> None:
    continuation = [7, 60, 33]
    full = loader.scores(continuation)
    cut = loader.scores(continuation, head_tokens=kept_file)
    rows = dense(cut.distributions, VOCABULARY)
    assert rows.shape == (4, VOCABULARY)
    torch.testing.assert_close(rows, renormalized(dense(full.distributions, VOCABULARY)), atol=1e-4, rtol=0)
    torch.testing.assert_close(cut.pooled_state, full.pooled_state, atol=1e-4, rtol=0)


def test_only_kept_tokens_are_drawn(loader: Loader, kept_file: str) -> None:
    for generation in loader.generations(head_tokens=kept_file):
        assert set(generation.token_ids) <= set(KEPT)
        assert all(logprob > -torch.inf for logprob in generation.logprobs)
        rows = dense(generation.distributions, VOCABULARY)
        assert rows.shape == (12, VOCABULARY)
        assert not rows[:, CUT].any()


def test_cut_tokens_have_probability_zero_and_may_be_in_a_context(loader: Loader, kept_file: str) -> None:
    score = loader.scores([7, 1, 60], head_tokens=kept_file)
    assert score.logprobs[1] == -torch.inf
    assert score.logprobs[0] > -torch.inf
    assert score.logprobs[2] > -torch.inf
    expected = renormalized(dense(loader.scores([7, 1, 60]).distributions, VOCABULARY))
    torch.testing.assert_close(dense(score.distributions, VOCABULARY), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no ids; expected ids from 0 to 60"),
        ("1\n61\n", "has ids from 1 to 61; expected ids from 0 to 60"),
        ("-1\n1\n", "has ids from -1 to 1; expected"),
        ("one\n", "expected a file with one token id per line"),
        (None, "expected a file with one token id per line"),
    ],
)
def test_unfit_files_are_refused(loader: Loader, content: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        loader.load(head_tokens=str(path))


def test_models_that_cap_their_logits_are_refused(tmp_path: Path, kept_file: str) -> None:
    """After the cap, a logit of minus infinity is an ordinary one: the cut tokens would come back."""
    config = Gemma2Config(**SIZES, head_dim=8, final_logit_softcapping=3.0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="changes its logits after the head"):
        load(tmp_path, head_tokens=kept_file)


def test_llama_cpp_models_that_scale_embeddings_are_refused(
    llama_file: Path, kept_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModelRunner, "embeddings_work", lambda _: False)
    with pytest.raises(ModelError, match=r"llama\.cpp changes the token embeddings"):
        load_llama_cpp(llama_file, head_tokens=kept_file)


def test_llama_cpp_compares_embeddings_with_token_ids(llama_file: Path, kept_file: str) -> None:
    runner = load_llama_cpp(llama_file, head_tokens=kept_file)._runner
    assert runner.embeddings_work()
    assert runner._cut is not None
    rows = runner._cut.embeddings.rows
    runner._cut.embeddings.rows = lambda ids: 2 * rows(ids)  # type: ignore[method-assign]
    assert not runner.embeddings_work()


def test_the_rewritten_file_is_kept(
    llama_file: Path, kept_file: str, caplog: pytest.LogCaptureFixture
) -> None:
    load_llama_cpp(llama_file, head_tokens=kept_file)
    caplog.clear()
    load_llama_cpp(llama_file, head_tokens=kept_file)
    assert "cut head" not in caplog.text
