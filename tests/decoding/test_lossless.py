"""Whatever a draft proposes, a configuration that is called lossless gives the target's distribution."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig

from semanticspec import DecodingConfig, RuleConfig, Sampling, generate
from semanticspec.decoding.pair import Model
from semanticspec.engines.base import Engine
from semanticspec.engines.transformers.engine import TransformersEngine
from tests.support.lossless import EXTRA, THINK_END, Case, Side, random_case, token_ids
from tests.support.tiny_models import SIZES, save_model
from tests.support.vocabularies import make_vocabulary

CASES = int(os.environ.get("SEMANTICSPEC_LOSSLESS_CASES", "24"))
TRIALS = int(os.environ.get("SEMANTICSPEC_LOSSLESS_TRIALS", "1500"))
TOKENS = ("<eos>", "<think>", "</think>")


@pytest.mark.parametrize("seed", range(CASES))
def test_a_lossless_configuration_gives_the_targets_distribution(seed: int) -> None:
    case = random_case(seed)
    assert not case.config.lossy
    p_value = case.p_value(TRIALS)
    assert p_value > 1e-5, f"p = {p_value:.2g}: {case.config}"


def side(row: Mapping[str, float], *added: str, padding: int = 0) -> Side:
    """A model that says the same after every token."""
    vocabulary = make_vocabulary(("a", "b"), added=(*TOKENS, *added))
    texts = ["a", "b", "\n", "\n\n", *TOKENS, *added]
    return Side(vocabulary, {text: dict(row) for text in texts}, padding)


@dataclass(frozen=True)
class CutSide(Side):
    """A network in place of the chain."""

    engine: Engine | None = None

    def model(self) -> Model:
        assert self.engine is not None
        return Model(self.engine, self.vocabulary)


def lossless(rule: str, **changes: Any) -> DecodingConfig:
    plain = {"sampling": Sampling(1.0, 1.0), "partial_acceptance": False, "num_speculative_tokens": 0}
    return DecodingConfig(rule=RuleConfig(name=rule), **plain | {"max_new_tokens": 1} | changes)


HALF = {"a": 0.5, "b": 0.5}


@pytest.mark.parametrize(
    "config",
    [
        lossless("token"),
        lossless("token", num_speculative_tokens=4),
        lossless("never", partial_acceptance=True),
        lossless("never", num_speculative_tokens=4),
        lossless("never", partial_acceptance=True, num_speculative_tokens=4, first_segment="target"),
    ],
    ids=["token", "token in proposals", "partial acceptance", "token speculation", "both"],
)
def test_a_first_token_that_the_target_does_not_have(config: DecodingConfig) -> None:
    """P(a) was .757 and .883 for .5: the target's own distribution was sampled instead of the residual."""
    assert Case(side(HALF), side({"a": 0.5, EXTRA: 0.5}, EXTRA), config).p_value(4000) > 1e-5


@pytest.mark.parametrize("rule", ["token", "never"])
@pytest.mark.parametrize("num_speculative_tokens", [0, 4])
def test_a_think_end_is_verified_whatever_judge_think_end_says(
    rule: str, num_speculative_tokens: int
) -> None:
    """P(</think>) was .243 for .5: drafts with it were dropped."""
    config = lossless(
        rule,
        judge_think_end=False,
        partial_acceptance=True,
        num_speculative_tokens=num_speculative_tokens,
        max_new_tokens=2,
    )
    case = Case(side({"a": 0.5, THINK_END: 0.5}), side({"a": 0.2, THINK_END: 0.8}), config)
    assert case.p_value(3000) > 1e-5


@pytest.mark.parametrize("num_speculative_tokens", [0, 4])
def test_a_draft_with_a_cut_head(num_speculative_tokens: int, tmp_path: Path) -> None:
    """The draft never proposes `b` and the blank line; the target's residual does. They are in its contexts."""
    target = side({"a": 0.2, "b": 0.5, "\n": 0.1, "\n\n": 0.2})
    ids = token_ids(target.vocabulary)
    save_model(tmp_path, LlamaConfig(**SIZES | {"vocab_size": len(ids), "initializer_range": 0.5}))
    kept = tmp_path / "kept.txt"
    kept.write_text("\n".join(str(i) for text, i in ids.items() if text not in ("b", "\n\n")))
    engine = TransformersEngine.load(str(tmp_path), dtype="float32", threads=1, head_tokens=str(kept))
    draft = CutSide(target.vocabulary, {}, engine=engine)
    config = lossless("token", num_speculative_tokens=num_speculative_tokens, max_new_tokens=3)
    assert Case(target, draft, config).p_value(600) > 1e-5


@pytest.mark.parametrize("num_speculative_tokens", [0, 2])
def test_a_loop_that_ends_speculation_does_not_bias_what_follows(num_speculative_tokens: int) -> None:
    config = lossless(
        "token",
        num_speculative_tokens=num_speculative_tokens,
        max_segment_tokens=1,
        max_new_tokens=5,
        max_repeated_tokens=1,
    )
    case = Case(side({"a": 0.85, "b": 0.15}), side({"a": 0.9, "b": 0.1}), config)
    results = [generate(case.pair(), "a", replace(config, seed=seed)) for seed in range(100)]
    assert sum(result.speculation_ended is not None for result in results) > 10
    assert case.p_value(4000) > 1e-5


def test_ids_beyond_the_drafts_tokenizer_are_no_tokens_of_the_target() -> None:
    """A padded id of the draft is an added token of the target: it must not be mistaken for it."""
    draft = side({"a": 0.6, "b": 0.4}, padding=4)
    target = side({"a": 0.5, "b": 0.3, EXTRA: 0.2}, EXTRA)
    model = draft.model()
    size = model.engine.info.vocabulary_size
    model.engine._next = lambda _: [0.3, 0.2, *[0.0] * (size - 3), 0.5]  # type: ignore[attr-defined]
    case = Case(target, draft, lossless("token", num_speculative_tokens=3, max_new_tokens=3))
    pair = type(case.pair())(case.pair().target, model)
    for seed in range(200):
        config = lossless("token", num_speculative_tokens=3, max_new_tokens=3, seed=seed)
        result = generate(pair, "a", config)
        assert len(result.token_ids) == 3


def test_nothing_follows_an_end_of_text_inside_a_draft() -> None:
    """The target ends its text with a token that the draft takes for an ordinary added token."""
    target = side({"a": 0.5, "<|im_end|>": 0.5}, "<|im_end|>")
    target.vocabulary.end_ids = target.vocabulary.end_ids | {target.vocabulary.encode("<|im_end|>")[0]}
    draft = side({"a": 0.5, "<|im_end|>": 0.5}, "<|im_end|>")
    draft.vocabulary.end_ids = frozenset({draft.vocabulary.end_id})
    ends = target.vocabulary.end_ids
    for rule in ("token", "always", "never"):
        for seed in range(60):
            pair = Case(target, draft, lossless(rule)).pair()
            result = generate(pair, "a", lossless(rule, max_new_tokens=12, seed=seed))
            assert not ends.intersection(result.token_ids[:-1])
            assert (result.finish_reason == "stop") == (result.token_ids[-1] in ends)


def test_a_segment_of_the_target_has_at_most_max_segment_tokens() -> None:
    """Without blank lines one rejection handed everything that was left to the target."""
    pair = Case(side({"a": 1.0}), side({"b": 1.0}), lossless("never")).pair()
    result = generate(pair, "a", lossless("never", max_new_tokens=60, max_segment_tokens=8))
    written = [segment.num_tokens for segment in result.segments if segment.author == "target"]
    assert max(written) == 8
    assert result.stats.segments_rejected == len(written)
