"""Token-level speculation inside the loop: what it changes in the output is nothing but who found the words."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from semanticspec import DecodingConfig, generate
from semanticspec.config import target_alone
from semanticspec.decoding.pair import Model, Pair
from semanticspec.engines.scripted import ScriptedEngine
from semanticspec.errors import ConfigError
from semanticspec.records import GREEDY
from tests.support.scripted_pairs import A, B, config, draft_says, make_pair, target_says
from tests.support.vocabularies import make_vocabulary

OPTIMIZATIONS: dict[str, dict[str, Any]] = {
    "partial-acceptance": {"partial_acceptance": True},
    "proposals of 1": {"num_speculative_tokens": 1},
    "proposals of 8": {"num_speculative_tokens": 8},
    "both": {"partial_acceptance": True, "num_speculative_tokens": 8},
}
TRIALS = 700


def never(**changes: Any) -> DecodingConfig:
    return config("never", **changes)


@pytest.mark.parametrize("optimization", OPTIMIZATIONS)
def test_greedy_output_is_the_targets_token_for_token(optimization: str) -> None:
    alone = generate(make_pair(), "a", target_alone(never(sampling=GREEDY)))
    for limit in (100, 1, 2, 7):
        helped = generate(
            make_pair(), "a", never(sampling=GREEDY, max_new_tokens=limit, **OPTIMIZATIONS[optimization])
        )
        assert helped.token_ids == alone.token_ids[:limit]
        assert helped.finish_reason == ("stop" if limit == 100 else "length")


@pytest.mark.parametrize("optimization", OPTIMIZATIONS)
def test_sampled_output_has_the_targets_distribution(optimization: str) -> None:
    pair = make_pair()
    seen = Counter(
        generate(pair, "a", never(seed=seed, **OPTIMIZATIONS[optimization])).text[:3]
        for seed in range(TRIALS)
    )
    letters = {"a": 5 / 9, "b": 3 / 9, "c": 1 / 9}
    expected = {
        x + y + z: TRIALS * letters[x] * letters[y] * letters[z]
        for x in letters
        for y in letters
        for z in letters
    }

    def statistic(counts: Counter[str]) -> float:
        return sum((counts[text] - number) ** 2 / number for text, number in expected.items())

    assert statistic(seen) < 60  # 26 degrees of freedom: p < 0.0002
    drafts = Counter(generate(pair, "a", config("always", seed=seed)).text[:3] for seed in range(200))
    assert statistic(drafts) > 300  # the test can fail


def test_an_unsure_draft_ends_its_proposals_early() -> None:
    means = {}
    for min_likelihood in (0.0, 0.5, 1.0):
        changes = {"num_speculative_tokens": 8, "min_proposal_likelihood": min_likelihood}
        done = [generate(make_pair(), "a", never(seed=seed, **changes)) for seed in range(20)]
        sizes = [proposed for each in done for s in each.segments for proposed, _ in s.proposals if proposed]
        means[min_likelihood] = sum(sizes) / len(sizes)
    assert means[0.0] > 1.2 * means[0.5]
    assert means[0.5] > means[1.0]


def test_a_like_minded_draft_saves_passes_of_the_target() -> None:
    """Draft and target the same: every proposal is kept, and each check gives one token more."""
    vocabulary = make_vocabulary()
    pair = Pair(
        Model(ScriptedEngine(target_says, 9), vocabulary), Model(ScriptedEngine(target_says, 9), vocabulary)
    )
    helped = generate(pair, "a", never(num_speculative_tokens=3, min_proposal_likelihood=0))
    assert pair.target.engine.calls.count("stream") == 0
    assert (
        pair.target.engine.calls.count("score") - helped.stats.segments_rejected < helped.stats.num_tokens / 2
    )
    assert generate(pair, "a", target_alone(never())).stats.num_tokens == helped.stats.num_tokens


def test_a_kept_prefix_is_the_drafts_and_the_rest_the_targets() -> None:
    """Greedy: the draft begins as the target does and then goes its own way."""

    def begins_alike(ids: tuple[int, ...]) -> list[float]:
        probabilities = list(target_says(ids))
        if len(ids) % 2 == 0:
            probabilities[A], probabilities[B] = probabilities[B], probabilities[A]
        return probabilities

    vocabulary = make_vocabulary()
    pair = Pair(
        Model(ScriptedEngine(target_says, 9), vocabulary), Model(ScriptedEngine(begins_alike, 9), vocabulary)
    )
    result = generate(pair, "a", never(sampling=GREEDY, partial_acceptance=True))
    assert result.token_ids == generate(pair, "a", target_alone(never(sampling=GREEDY))).token_ids
    first, kept, correction, rest = result.segments[:4]
    assert (first.author, first.accepted, first.text[:2]) == ("draft", False, "ab")
    assert (kept.author, kept.text, kept.accepted) == ("draft", "a", None)
    assert (correction.author, correction.text, rest.author) == ("target", "a", "target")
    assert result.stats.draft_tokens > 0
    assert sum(s.num_tokens for s in result.segments if s.accepted is not False) == result.stats.num_tokens


def test_a_rejected_segment_the_target_would_have_written_is_kept_whole() -> None:
    vocabulary = make_vocabulary()
    pair = Pair(
        Model(ScriptedEngine(target_says, 9), vocabulary), Model(ScriptedEngine(target_says, 9), vocabulary)
    )
    result = generate(pair, "a", never(partial_acceptance=True))
    thinking = [segment for segment in result.segments if segment.accepted is None][:-1]
    assert {segment.author for segment in thinking} == {"draft"}
    assert result.finish_reason == "stop"


def test_pairs_that_cannot_are_refused() -> None:
    pair = make_pair()
    other = Pair(pair.target, Model(ScriptedEngine(draft_says, 9), make_vocabulary(["d", "c", "b", "a"])))
    with pytest.raises(ConfigError, match=r"partial_acceptance, num_speculative_tokens.*same tokens"):
        generate(other, "a", config("top-k", num_speculative_tokens=4))
    with pytest.raises(ConfigError, match="num_speculative_tokens is -1"):
        config(num_speculative_tokens=-1)


def test_the_target_reads_a_rejected_segment_once() -> None:
    pair = make_pair()
    drafted = generate(pair, "a", never(partial_acceptance=True)).stats.segments_rejected
    assert isinstance(pair.target.engine, ScriptedEngine)
    assert pair.target.engine.calls.count("score") == drafted > 0


def test_the_token_rule_keeps_its_own_prefix() -> None:
    """Checked twice, a token would have two chances, and the output not the target's distribution."""
    pair = make_pair()
    for seed in range(50):
        plain = generate(pair, "a", config("token", seed=seed))
        assert (
            generate(pair, "a", config("token", seed=seed, partial_acceptance=True)).token_ids
            == plain.token_ids
        )
