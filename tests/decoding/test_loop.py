"""Properties of the loop, with scripted models whose probabilities are known."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import aclosing
from dataclasses import replace
from itertools import pairwise

import pytest

from semanticspec import RuleConfig, decode, generate, preset
from semanticspec.config import target_alone
from semanticspec.decoding.generate import generate_async
from semanticspec.decoding.pair import Model, Pair
from semanticspec.engines.scripted import ScriptedEngine
from semanticspec.errors import ConfigError, ProbeError, PromptError
from semanticspec.records import (
    GREEDY,
    Finished,
    SegmentDecided,
    SegmentDrafted,
    TextWritten,
    ThinkingEnded,
)
from tests.support.scripted_pairs import (
    EOS,
    RAW,
    A,
    B,
    C,
    D,
    FixedProbe,
    collect,
    config,
    draft_says,
    make_pair,
    row,
    segment_texts,
    target_says,
)
from tests.support.vocabularies import make_vocabulary


@pytest.mark.parametrize("sampling", [GREEDY, RAW])
@pytest.mark.parametrize("seed", range(5))
def test_never_is_the_target_alone_token_for_token(sampling, seed):
    decoding = config("never", sampling=sampling, seed=seed)
    alone = generate(make_pair(), "a", target_alone(decoding))
    rejected = generate(make_pair(), "a", decoding)
    assert rejected.token_ids == alone.token_ids
    assert rejected.stats.draft_tokens == 0
    assert rejected.stats.segments_rejected > 0


def test_always_is_the_draft_alone_token_for_token():
    pair = make_pair()
    for seed in range(5):
        speculated = generate(pair, "a", config("always", speculate_answer=True, seed=seed, sampling=GREEDY))
        alone = generate(Pair(pair.draft, pair.draft), "a", target_alone(config(sampling=GREEDY)))
        assert speculated.token_ids == alone.token_ids
        assert speculated.stats.draft_token_share == 1


def test_target_alone_never_calls_the_draft():
    pair = make_pair()
    generate(pair, "a", target_alone(config()))
    assert pair.draft.engine.calls == []
    assert pair.target.engine.calls == ["stream"]


async def test_events_add_up_to_the_result():
    for seed in range(10):
        events = await collect(make_pair(), config(seed=seed))
        result = events[-1].result
        written = [event for event in events if isinstance(event, TextWritten)]
        decided = [event for event in events if isinstance(event, SegmentDecided)]
        assert "".join(event.text for event in written) == result.text
        assert tuple(i for event in written for i in event.token_ids) == result.token_ids
        assert sum(len(e.token_ids) for e in written if e.author == "draft") == result.stats.draft_tokens
        assert len(decided) == result.stats.segments_accepted + result.stats.segments_rejected
        assert sum(isinstance(event, SegmentDrafted) for event in events) == len(decided)
        assert sum(isinstance(event, ThinkingEnded) for event in events) == 1
        assert sum(isinstance(event, Finished) for event in events) == 1
        assert segment_texts(result.segments) == result.text
        assert (
            sum(s.num_tokens for s in result.segments if s.accepted is not False) == result.stats.num_tokens
        )


@pytest.mark.parametrize(("p_target", "strictness"), [(0.3, 1.0), (0.3, 1.5)])
def test_semantic_rule_accepts_at_the_ratio(p_target, strictness):
    rule = RuleConfig(strictness=strictness)
    results = [
        generate(make_pair(p_target, 0.5), "a", replace(config(seed=seed), rule=rule)) for seed in range(300)
    ]
    accepted = sum(result.stats.segments_accepted for result in results)
    decided = accepted + sum(result.stats.segments_rejected for result in results)
    assert decided > 1000
    assert accepted / decided == pytest.approx(p_target / (strictness * 0.5), abs=0.04)


def test_answer_is_the_targets_and_thinking_is_split_off():
    result = generate(make_pair(1.0), "a", config())
    assert result.answer == "dd"
    assert result.text == f"{result.reasoning}\n\n</think>dd"
    assert result.segments[-1].author == "target"
    assert result.finish_reason == "stop"


@pytest.mark.parametrize("num_speculative_tokens", [0, 5])
def test_token_rule_leaves_the_targets_distribution_unchanged(num_speculative_tokens: int):
    pair = make_pair()
    trials = 1500
    settings = {"num_speculative_tokens": num_speculative_tokens}
    spoken = Counter(generate(pair, "a", config("token", seed=s, **settings)).text[:3] for s in range(trials))
    alone = Counter(generate(pair, "a", target_alone(config(seed=s + 10**6))).text[:3] for s in range(trials))
    letters = {"a": 5 / 9, "b": 3 / 9, "c": 1 / 9}
    expected = {
        x + y + z: trials * letters[x] * letters[y] * letters[z]
        for x in letters
        for y in letters
        for z in letters
    }
    for counts in (spoken, alone):
        statistic = sum((counts[text] - e) ** 2 / e for text, e in expected.items())
        assert statistic < 60, statistic  # 26 degrees of freedom: p < 0.0002
    drafts = Counter(generate(pair, "a", config("always", seed=s)).text[:3] for s in range(500))
    assert sum((drafts[t] - e / 3) ** 2 / (e / 3) for t, e in expected.items()) > 500  # the test can fail


def test_token_rule_with_proposals_drafts_a_few_tokens_at_a_time_and_adds_one_of_the_targets():
    pair = make_pair()
    longest = Counter()
    for seed in range(200):
        result = generate(
            pair,
            "a",
            config(
                "token", seed=seed, num_speculative_tokens=3, min_proposal_likelihood=0, max_new_tokens=40
            ),
        )
        drafted = [segment for segment in result.segments if segment.accepted is not None]
        longest[max(segment.num_tokens for segment in drafted)] += 1
        for segment, after in pairwise(result.segments):
            if segment.accepted and not segment.text.endswith(("\n\n", "</think>")):
                assert (after.author, after.num_tokens) == ("target", 1)
    assert set(longest) <= {1, 2, 3}
    assert longest[3] > 100


@pytest.mark.parametrize("rule", ["semantic", "token", "top-k", "always", "never"])
@pytest.mark.parametrize("changes", [{}, {"max_new_tokens": 9}, {"speculate_answer": True}])
def test_overlap_changes_no_token(rule, changes):
    for seed in range(6):
        plain = generate(make_pair(), "a", config(rule, seed=seed, **changes))
        pair = make_pair()
        overlapped = generate(pair, "a", config(rule, seed=seed, overlap=True, **changes))
        assert overlapped.token_ids == plain.token_ids
        assert overlapped.segments == plain.segments
        drafts = overlapped.stats.segments_accepted + overlapped.stats.segments_rejected
        wasted = pair.draft.engine.calls.count("generate") - drafts
        assert 0 <= wasted <= overlapped.stats.segments_rejected + 1


async def test_drafting_begins_before_the_verdict():
    pair = make_pair()
    began: list[int] = []
    score = pair.target.engine.score

    async def slow_score(*args, **options):
        await asyncio.sleep(0.01)
        began.append(pair.draft.engine.calls.count("generate"))
        return await score(*args, **options)

    pair.target.engine.score = slow_score
    await generate_async(pair, "a", config("always", overlap=True))
    assert began[:3] == [2, 3, 4]
    began.clear()
    pair.draft.engine.calls.clear()
    await generate_async(pair, "a", config("always"))
    assert began[:3] == [1, 2, 3]


async def test_closing_early_leaves_the_pair_usable():
    pair = make_pair()
    before = await generate_async(pair, "a", config())
    async with aclosing(decode(pair, "a", config())) as events:
        async for event in events:
            if isinstance(event, TextWritten):
                break
    task = asyncio.create_task(generate_async(pair, "a", config()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    after = await generate_async(pair, "a", config())
    assert after.token_ids == before.token_ids


async def test_generate_works_inside_a_running_loop():
    assert generate(make_pair(), "a", config()).text


async def test_concurrent_requests_do_not_mix():
    pair = make_pair()
    alone = [await generate_async(pair, "a", config(seed=seed)) for seed in range(8)]
    together = await asyncio.gather(*(generate_async(pair, "a", config(seed=seed)) for seed in range(8)))
    assert [r.token_ids for r in together] == [r.token_ids for r in alone]


def test_paper_preset_lets_the_target_begin_and_end():
    paper = replace(preset("paper"), sampling=RAW, max_new_tokens=100)
    paper = replace(paper, rule=replace(paper.rule, shortcut_top_k=0))
    result = generate(make_pair(1.0), "a", paper)
    authors = [segment.author for segment in result.segments]
    assert authors[0] == authors[-1] == "target"
    assert not any("</think>" in s.text for s in result.segments if s.author == "draft")
    assert any(s.num_tokens == 1 and s.author == "target" for s in result.segments[1:-1])  # bonus tokens
    assert result.lossy


def test_length_limits_are_kept():
    for limit in (1, 2, 5, 7):
        result = generate(make_pair(), "a", config(max_new_tokens=limit))
        assert len(result.token_ids) == limit
        assert result.finish_reason == "length"
    result = generate(make_pair(max_context_tokens=12), "a", config())
    assert len(result.token_ids) == 11
    short = generate(make_pair(1.0), "a", config(max_segment_tokens=2))
    assert max(s.num_tokens for s in short.segments if s.author == "draft") == 2


def test_end_of_text_inside_a_draft_ends_the_request():
    vocabulary = make_vocabulary()
    quiet = ScriptedEngine(lambda ids: row(a=1) if len(ids) < 4 else row(eos=1), 9)
    pair = Pair(Model(quiet, vocabulary), Model(quiet, vocabulary), FixedProbe(1), FixedProbe(1))
    result = generate(pair, "a", config(sampling=GREEDY))
    assert (result.text, result.finish_reason) == ("aaa", "stop")
    assert result.token_ids[-1] == EOS


def test_draft_token_without_counterpart_is_never_kept():
    """The draft's vocabulary has a token the target lacks; segments end before it."""
    draft_vocabulary = make_vocabulary(added=("<eos>", "<think>", "</think>", "<tool>"))
    tool = 9

    def with_tool(ids: tuple[int, ...]) -> list[float]:
        return [*[0.5 * p for p in draft_says(tuple(i for i in ids if i != tool))], 0.5]

    pair = Pair(
        Model(ScriptedEngine(target_says, 9), make_vocabulary()),
        Model(ScriptedEngine(with_tool, 10), draft_vocabulary),
        FixedProbe(1),
        FixedProbe(1),
    )
    pair.target_probe.estimate = pair.draft_probe.estimate = lambda _: 1.0
    assert pair.same_vocabulary
    for seed in range(20):
        for rule in ("semantic", "token"):
            result = generate(pair, "a", config(rule, seed=seed))
            assert tool not in result.token_ids
            assert result.finish_reason == "stop"


def test_pairs_with_different_tokenizers_exchange_text():
    other = make_vocabulary(["d", "c", "b", "a"])
    swap = {A: D, B: C, C: B, D: A}

    def other_says(ids: tuple[int, ...]) -> list[float]:
        probabilities = draft_says(tuple(swap.get(i, i) for i in ids))
        return [probabilities[swap.get(i, i)] for i in range(9)]

    target = make_pair().target
    pair = Pair(target, Model(ScriptedEngine(other_says, 9), other), FixedProbe(0.5), FixedProbe(1.0))
    assert not pair.same_vocabulary
    result = generate(pair, "a", config())
    assert result.stats.segments_accepted
    assert result.answer == "dd"
    same = generate(make_pair(), "a", config())
    assert result.text != ""
    assert same.stats.segments_accepted
    with pytest.raises(ConfigError, match="same tokens"):
        generate(pair, "a", config("token"))


def test_bad_requests_are_refused_before_any_text():
    with pytest.raises(PromptError, match="empty"):
        generate(make_pair(), "  ", config())
    with pytest.raises(PromptError, match="context of 4 tokens must hold"):
        generate(make_pair(max_context_tokens=4), "aaaaaa", config())
    pair = make_pair()
    with pytest.raises(ProbeError, match="draft-probe"):
        generate(replace(pair, draft_probe=None), "a", config())
    assert pair.draft.engine.calls == pair.target.engine.calls == []
