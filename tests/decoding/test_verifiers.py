"""Empirical acceptance of every rule against its closed form, and losslessness of the token rule."""

from collections import Counter
from dataclasses import replace
from functools import partial
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semanticspec import decode, generate
from semanticspec.config import DecodingConfig, RuleConfig, target_alone
from semanticspec.decoding.context import RequestContext
from semanticspec.decoding.draft import Draft
from semanticspec.decoding.generate import result_of, run_blocking
from semanticspec.decoding.transcript import Transcript
from semanticspec.decoding.verifiers import RULES, make_verifier
from semanticspec.decoding.verifiers.controls import accept_rate
from semanticspec.decoding.verifiers.semantic import acceptance_probability
from semanticspec.decoding.verifiers.token import accept_tokens
from semanticspec.errors import ProbeError
from semanticspec.records import (
    Generation,
    Reading,
    Score,
    SegmentDecided,
    SegmentDrafted,
    SegmentText,
    Verdict,
)
from tests.support.byte_pairs import pair_that_writes
from tests.support.distributions import sparse
from tests.support.scripted_pairs import FixedProbe, collect, config, make_pair

TRIALS = 20_000


def decide(
    rule: RuleConfig, token_ids: tuple[int, ...], ranks: tuple[int, ...] = (), p_target=0.5, p_draft=1.0
) -> Verdict:
    return frequency_of(rule, token_ids, ranks, p_target, p_draft, 1)[1]


def frequency(rule: RuleConfig, token_ids, ranks=(), p_target=0.5, p_draft=1.0) -> float:
    return frequency_of(rule, token_ids, ranks, p_target, p_draft, TRIALS)[0]


def frequency_of(rule, token_ids, ranks, p_target, p_draft, trials) -> tuple[float, Verdict]:
    """Share of accepted drafts, and the last verdict."""
    request = RequestContext(make_pair(p_target, p_draft), DecodingConfig(rule=rule))
    made = RULES[rule.name](request)
    state = torch.zeros(9)
    draft = Draft(Generation((), state, None, token_ids), token_ids)
    verdicts = [made.decide(draft, Score((), state, ranks=ranks)) for _ in range(trials)]
    return sum(verdict.accepted for verdict in verdicts) / trials, verdicts[-1]


@pytest.mark.parametrize(
    ("p_target", "p_draft", "strictness", "ratio_floor", "target_floor", "expected"),
    [
        (0.3, 0.6, 1.0, 0.0, 0.0, 0.5),
        (0.9, 0.6, 1.0, 0.0, 0.0, 1.0),
        (0.3, 0.6, 2.0, 0.0, 0.0, 0.25),
        (0.3, 0.6, 0.5, 0.0, 0.0, 1.0),
        (0.3, 0.6, 1.0, 0.6, 0.0, 0.0),
        (0.3, 0.6, 1.0, 0.4, 0.0, 0.5),
        (0.3, 0.6, 1.0, 0.0, 0.3, 0.5),
        (0.025, 0.025, 1.0, 0.0, 0.0, 1.0),
        (0.025, 0.025, 1.0, 0.0, 0.1, 0.0),
    ],
)
def test_semantic_frequency_is_the_ratio(p_target, p_draft, strictness, ratio_floor, target_floor, expected):
    rule = RuleConfig(strictness=strictness, ratio_floor=ratio_floor, target_floor=target_floor)
    assert acceptance_probability(rule, p_target, p_draft) == pytest.approx(expected)
    assert frequency(rule, (1, 2, 3), (1, 9, 1), p_target, p_draft) == pytest.approx(expected, abs=0.015)


def test_random_rate_depends_on_length_only():
    rule = RuleConfig(name="random", accept_rate_by_length=((2, 0.2), (5, 0.7)))
    assert frequency(rule, (1, 2)) == pytest.approx(0.2, abs=0.015)
    assert frequency(rule, (1, 2, 3)) == pytest.approx(0.7, abs=0.015)
    assert accept_rate(rule, 99) == 0.7
    assert accept_rate(RuleConfig(name="random", accept_rate=0.4), 3) == 0.4


def test_always_never_and_top_k_are_certain():
    scored = (1, 2, 3), (1, 2, 3)
    assert frequency(RuleConfig(name="always"), *scored) == 1
    assert frequency(RuleConfig(name="never"), *scored) == 0
    assert frequency(RuleConfig(name="top-k", top_k=3), *scored) == 1
    assert frequency(RuleConfig(name="top-k", top_k=2), *scored) == 0


def test_shortcut_needs_no_probes():
    verdict = decide(RuleConfig(shortcut_top_k=2), (1, 2), (1, 2))
    assert verdict.accepted
    assert verdict.reason == "shortcut"


def test_rejected_by_meaning_keeps_nothing():
    verdict = decide(RuleConfig(), (1, 2), (3, 3), 1e-9)
    assert (verdict.accepted, verdict.num_kept, verdict.next_id) == (False, 0, None)


distribution = st.lists(st.floats(0.01, 1.0), min_size=4, max_size=4).map(lambda w: [x / sum(w) for x in w])


@settings(max_examples=15, deadline=None, derandomize=True)
@given(target=distribution, draft=distribution)
def test_token_rule_first_token_has_the_targets_distribution(target, draft):
    """Leviathan et al.: whatever the draft, the token that stands is distributed as the target's."""
    random = Random(7)
    trials, counts = 1500, Counter()
    for _ in range(trials):
        drafted = random.choices(range(4), draft)[0]
        verdict = accept_tokens((drafted,), sparse([target, target]), sparse([draft]), random)
        counts[drafted if verdict.accepted else verdict.next_id] += 1
    # chi-square with 3 degrees of freedom; hypothesis looks for the worst of many pairs
    statistic = sum((counts[i] - trials * p) ** 2 / (trials * p) for i, p in enumerate(target))
    assert statistic < 35


def test_token_rule_frequency_is_the_ratio():
    target, draft = sparse([[0.2, 0.8], [0.5, 0.5]]), sparse([[0.5, 0.5]])
    random = Random(1)
    accepted = sum(accept_tokens((0,), target, draft, random).accepted for _ in range(TRIALS))
    assert accepted / TRIALS == pytest.approx(0.4, abs=0.015)


def test_token_rule_replaces_a_token_the_target_does_not_have():
    target, draft = sparse([[1.0, 0.0], [0.0, 1.0]]), sparse([[1.0, 0.0], [0.6, 0.0]])
    verdict = accept_tokens((0,), target, draft, Random(0))
    assert (verdict.accepted, verdict.num_kept, verdict.next_id) == (False, 1, 1)


class KeepsNothing:
    """A verifier whose verdicts make no progress."""

    needs_distributions = False

    def __init__(self, request: RequestContext, *, accepted: bool, lossy: bool = True) -> None:
        self._accepted, self.lossy = accepted, lossy

    async def verify(self, transcript: Transcript, draft: Draft) -> Verdict:
        return Verdict(self._accepted, 0, "nothing", next_author="draft")


@pytest.mark.parametrize("accepted", [True, False])
def test_a_verdict_that_keeps_nothing_lets_the_target_write(accepted: bool) -> None:
    pair, decoding = make_pair(), config("never", max_new_tokens=20)
    verifier = partial(KeepsNothing, accepted=accepted)
    if accepted:  # an accepted draft is kept whole, whatever the verdict counts
        result = run_blocking(result_of(decode(pair, "a", decoding, verifier=verifier)))
        assert result.stats.draft_tokens > 0
    else:
        result = run_blocking(result_of(decode(pair, "a", decoding, verifier=verifier)))
        alone = generate(make_pair(), "a", target_alone(decoding))
        assert result.token_ids == alone.token_ids


@pytest.mark.parametrize("lossy", [True, False])
def test_a_verifier_of_ones_own_says_itself_what_it_needs(lossy: bool) -> None:
    pair = replace(make_pair(), target_probe=None, draft_probe=None)
    verifier = partial(KeepsNothing, accepted=False, lossy=lossy)
    result = run_blocking(
        result_of(decode(pair, "a", config("semantic", max_new_tokens=20), verifier=verifier))
    )
    assert result.lossy is lossy


class NeedsRows:
    """A rule that looks at distributions."""

    lossy, needs_distributions = True, True

    def __init__(self, request: RequestContext) -> None: ...

    def decide(self, draft: Draft, score: Score) -> Verdict:
        assert score.distributions is not None
        assert draft.generation.distributions is not None
        return Verdict(True, len(draft.token_ids), "rows")


@pytest.mark.parametrize("bonus_token", [False, True])
def test_a_rule_of_ones_own_gets_the_distributions_it_needs(bonus_token: bool) -> None:
    decoding = config("always", max_new_tokens=20, bonus_token=bonus_token)
    events = decode(
        make_pair(), "a", decoding, verifier=lambda request: make_verifier(request, NeedsRows(request))
    )
    assert run_blocking(result_of(events)).stats.draft_tokens > 0


def test_every_drafted_event_has_a_decision() -> None:
    for judge_think_end in (True, False):
        decoding = config("always", judge_think_end=judge_think_end)
        kinds = [type(event) for event in run_blocking(collect(make_pair(), decoding))]
        assert kinds.count(SegmentDrafted) == kinds.count(SegmentDecided) > 0


class _Watching:
    """A probe that reads the drafted segment, and keeps what it is given."""

    needs_draft = True

    def __init__(self) -> None:
        self.asked: list[tuple[Reading, Draft]] = []

    def estimate(self, reading: Reading, draft: Draft) -> float:
        self.asked.append((reading, draft))
        return 0.5


@pytest.mark.parametrize("overlap", [False, True])
def test_probes_that_ask_for_it_get_the_whole_drafted_segment(overlap: bool) -> None:
    pair, probe = make_pair(), _Watching()
    mixed = replace(pair, target_probe=probe)
    result = run_blocking(result_of(decode(mixed, "a", config(max_new_tokens=40, overlap=overlap))))
    judged = [segment for segment in result.segments if segment.reason == "semantic"]
    assert len(probe.asked) == len(judged) > 2
    before = ""
    drafts = iter(probe.asked)
    for segment in result.segments:
        if segment.reason == "semantic":
            score, draft = next(drafts)
            assert isinstance(score, Score)
            assert draft.segment_text == SegmentText("a", before, segment.text)
            assert len(draft.generation.logprobs) == len(draft.token_ids)
        before += segment.text if segment.accepted is not False else ""
    mixed = replace(pair, draft_probe=probe)
    run_blocking(result_of(decode(mixed, "a", config(max_new_tokens=40))))
    assert probe.asked[-1][0] is probe.asked[-1][1].generation


def test_a_pair_with_two_vocabularies_is_told_that_a_probe_compares_tokens() -> None:
    pair = replace(make_pair(), draft=pair_that_writes("ab").draft)
    probe = FixedProbe(0.5)
    probe.needs_same_tokens = True  # type: ignore[attr-defined]
    with pytest.raises(ProbeError, match="compares both models token by token"):
        replace(pair, target_probe=probe, draft_probe=probe).check(config())
    replace(make_pair(), target_probe=probe).check(config())
