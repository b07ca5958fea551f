"""Speculation ends when the output repeats itself."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest

from semanticspec import DecodingConfig, RuleConfig, generate
from semanticspec.config import target_alone
from semanticspec.decoding.pair import Model, Pair
from semanticspec.decoding.repetition import RepetitionDetector
from semanticspec.engines.scripted import ScriptedEngine
from semanticspec.errors import ConfigError
from semanticspec.records import GREEDY, SegmentDrafted, SpeculationEnded, TextWritten
from tests.support.scripted_pairs import BLANK, A, B, C, FixedProbe, collect, config, row
from tests.support.vocabularies import make_vocabulary


def found_after(ids: Sequence[int], limit: int, *, by_draft: Sequence[bool] | None = None) -> int | None:
    """The number of tokens after which the detector notices a repetition."""
    detector = RepetitionDetector(limit)
    for count, token_id in enumerate(ids, 1):
        detector.add([token_id], by_draft=by_draft is None or by_draft[count - 1])
        if detector.found:
            return count
    return None


@pytest.mark.parametrize("period", [1, 2, 7, 100, 256])
def test_an_ngram_that_occurs_three_times_in_a_row_is_found(period: int) -> None:
    before, ngram = list(range(1000, 1040)), list(range(period))
    assert found_after([*before, *ngram * 2, *ngram[:-1], -1], 1) is None
    assert found_after(before + ngram * 3, 1) == len(before) + 3 * period
    assert found_after(before + ngram * 300, 128) == len(before) + max(3 * period, 128 + period)
    assert found_after(before + ngram * 300, 0) is None


def test_text_that_only_varies_a_little_is_not_found() -> None:
    random = Random(0)
    assert found_after([random.randrange(2) for _ in range(3000)], 64) is None
    counting = [token for number in range(300) for token in (1, 2, 3, 4, 1000 + number)]  # "so line 17 is"
    assert found_after(counting, 64) is None
    assert found_after(list(range(300)) * 3, 64) is None  # longer than what is looked for


def test_tokens_by_the_target_do_not_count() -> None:
    ids = [1, 2, 3] * 100
    assert found_after(ids, 64, by_draft=[False] * 300) is None
    assert found_after(ids, 64, by_draft=[n % 3 == 0 for n in range(300)]) is None
    assert found_after(ids, 64, by_draft=[n % 2 == 0 for n in range(300)]) is not None
    assert found_after(ids, 64, by_draft=[n > 200 for n in range(300)]) is None


def looping_pair() -> Pair:
    """Both models write "ab" and a blank line forever."""

    def says(ids: tuple[int, ...]) -> list[float]:
        return row(**{["a", "b", "blank"][(len(ids) - 1) % 3]: 1})

    vocabulary = make_vocabulary()
    return Pair(
        Model(ScriptedEngine(says, 9), vocabulary),
        Model(ScriptedEngine(says, 9), vocabulary),
        FixedProbe(1.0),
        FixedProbe(1.0),
    )


LOOPS = {
    "always": config("always", max_new_tokens=200),
    "semantic": config(max_new_tokens=200),
    "overlap": config(max_new_tokens=200, overlap=True),
    "added token": config(max_new_tokens=200, num_speculative_tokens=4, partial_acceptance=True),
    "token": config("token", max_new_tokens=200),
    "token in proposals": config("token", max_new_tokens=200, num_speculative_tokens=8),
}


@pytest.mark.parametrize("decoding", LOOPS.values(), ids=LOOPS)
async def test_a_loop_ends_speculation_with_an_event(decoding: DecodingConfig) -> None:
    pair = looping_pair()
    events = await collect(pair, decoding)
    result = events[-1].result
    (ended,) = [event for event in events if isinstance(event, SpeculationEnded)]
    assert result.speculation_ended == ended
    assert ended.reason == "the output repeats itself"
    assert 128 < ended.num_tokens < 150
    after = events[events.index(ended) + 1 :]
    assert not any(isinstance(event, SegmentDrafted) for event in after)
    assert all(event.author == "target" for event in after if isinstance(event, TextWritten))
    assert pair.target.engine.calls[-1] == "stream"
    assert len(result.token_ids) == 200
    assert result.token_ids[:6] == (A, B, BLANK, A, B, BLANK)
    assert result.token_ids == generate(pair, "a", target_alone(decoding)).token_ids


async def test_the_target_leaves_a_loop_that_only_the_draft_is_in() -> None:
    def draft_says(ids: tuple[int, ...]) -> list[float]:
        return row(a=1) if len(ids) % 4 else row(blank=1)

    def target_says(ids: tuple[int, ...]) -> list[float]:
        return row(eos=1) if ids[-1] == C else row(c=1)

    vocabulary = make_vocabulary()
    pair = Pair(
        Model(ScriptedEngine(target_says, 9), vocabulary), Model(ScriptedEngine(draft_says, 9), vocabulary)
    )
    off = generate(pair, "a", config("always", max_new_tokens=400, max_repeated_tokens=0))
    assert (off.finish_reason, off.speculation_ended) == ("length", None)
    result = generate(pair, "a", config("always", max_new_tokens=400))
    assert result.finish_reason == "stop"
    assert result.text.endswith("c")


def test_the_target_alone_and_text_that_it_writes_end_nothing() -> None:
    pair = looping_pair()
    for decoding in (target_alone(config(max_new_tokens=200)), config("never", max_new_tokens=200)):
        assert generate(pair, "a", decoding).speculation_ended is None


def test_a_negative_limit_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_repeated_tokens is -1; expected 0"):
        DecodingConfig(rule=RuleConfig("token"), sampling=GREEDY, max_repeated_tokens=-1)
