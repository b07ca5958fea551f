"""Several candidates for a segment: the rule looks at them in turn."""

from __future__ import annotations

from itertools import pairwise

import pytest

from semanticspec import DecodingConfig, RuleConfig, generate
from semanticspec.config import target_alone
from semanticspec.decoding.loop import segment_texts
from semanticspec.errors import ConfigError
from semanticspec.records import GREEDY, SegmentDecided, SegmentDrafted
from tests.support.scripted_pairs import collect, config, make_pair


@pytest.mark.parametrize(
    ("sampling", "prefix"), [(GREEDY, False), (GREEDY, True), (config().sampling, False)]
)
def test_never_is_the_target_alone(sampling, prefix: bool) -> None:
    for seed in range(4):
        decoding = config("never", sampling=sampling, seed=seed, num_candidates=3, keep_prefix=prefix)
        alone = generate(make_pair(), "a", target_alone(decoding))
        assert generate(make_pair(), "a", decoding).token_ids == alone.token_ids


def test_always_takes_the_first() -> None:
    for seed in range(4):
        one = generate(make_pair(), "a", config("always", seed=seed))
        three = generate(make_pair(), "a", config("always", seed=seed, num_candidates=3))
        assert three.token_ids == one.token_ids
        assert three.stats.drafted_tokens > one.stats.drafted_tokens


def test_greedy_candidates_are_one() -> None:
    result = generate(make_pair(), "a", config("never", sampling=GREEDY, num_candidates=5))
    assert (
        result.stats.segments_rejected
        == generate(make_pair(), "a", config("never", sampling=GREEDY)).stats.segments_rejected
    )


def test_each_further_look_is_another_chance() -> None:
    """With acceptance a, of k different candidates one is taken with probability 1 - (1 - a)^k."""
    looked = taken = 0
    for seed in range(120):
        result = generate(make_pair(), "a", config("random", seed=seed, num_candidates=4))
        verdicts = [segment.accepted for segment in result.segments if segment.accepted is not None]
        looked += len(verdicts)
        taken += sum(verdicts)
    assert taken / looked == pytest.approx(0.5, abs=0.05)  # each look by itself


async def test_events_tell_every_look_and_add_up() -> None:
    pair = make_pair()
    rejected_first = 0
    for seed in range(20):
        events = await collect(pair, config("random", seed=seed, num_candidates=3))
        drafted = [event for event in events if isinstance(event, SegmentDrafted)]
        decided = [event for event in events if isinstance(event, SegmentDecided)]
        assert [event.index for event in drafted] == list(range(len(drafted)))
        assert [event.index for event in decided] == [event.index for event in drafted]
        result = events[-1].result
        assert segment_texts(result.segments) == result.text
        assert result.stats.segments_accepted + result.stats.segments_rejected == len(decided)
        verdicts = [event.segment.accepted for event in decided]
        rejected_first += sum(not first and second for first, second in pairwise(verdicts))
    assert rejected_first > 5


def test_overlap_changes_nothing() -> None:
    for seed in range(6):
        changes = {"seed": seed, "num_candidates": 3}
        plain = generate(make_pair(), "a", config("random", **changes))
        assert generate(make_pair(), "a", config("random", overlap=True, **changes)).text == plain.text


def test_lossless_rules_take_one_candidate() -> None:
    with pytest.raises(ConfigError, match="set num_candidates to 1"):
        DecodingConfig(rule=RuleConfig("token"), num_candidates=2)
    with pytest.raises(ConfigError, match="num_candidates is 0"):
        DecodingConfig(num_candidates=0)
