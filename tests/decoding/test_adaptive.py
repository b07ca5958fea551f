"""The estimate of whether speculating pays, on pairs whose costs and acceptance are known exactly."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import pytest

from semanticspec.decoding.adaptive import AdaptivePolicy, AlwaysSpeculate


@dataclass
class Costs:
    """A pair in numbers. Seconds: one target token is 1.

    Attributes:
        draft: of a drafted token. draft_prompt: of the draft's reading the prompt.
        check, check_token: of a pass, and of each token read in it.
        accepts: probability that a segment is kept, cut short or not.
        length: tokens of a segment that is not cut.
        keeps: probability that a proposed token is kept, one by one.
    """

    draft: float
    accepts: float
    length: int = 30
    keeps: float = 0.0
    draft_prompt: float = 2.0
    check: float = 1.05
    check_token: float = 0.02
    prompt: float = 20.0

    def seconds(
        self, policy: AdaptivePolicy, num_tokens: int, random: Random, *, proposes: bool = False
    ) -> float:
        """What an answer of so many tokens takes when `policy` decides."""
        done, spent, first_pass = 0, 0.0, True
        while done < num_tokens:
            limit = policy.segment_limit()
            kept = False
            if policy.segments_pay():
                drafted = self.length if limit is None else min(self.length, limit)
                draft_s = self.draft * drafted + (self.draft_prompt if first_pass else 0)
                verify_s = self.check + self.check_token * drafted
                kept = random.random() < self.accepts
                spent += draft_s + verify_s
                measured = verify_s + (self.prompt if first_pass else 0)
                policy.report_segment(
                    drafted, drafted * kept, draft_s=draft_s, verify_s=measured, first_pass=first_pass
                )
                first_pass = False
                done += drafted * kept
            if not kept:
                spent += self._written(policy, random, proposes)
                done += self.length
                first_pass = False
        return spent

    def _written(self, policy: AdaptivePolicy, random: Random, proposes: bool) -> float:
        left, spent = self.length, 0.0
        while left > 0 and proposes and policy.tokens_pay():
            size = min(4, left)
            kept = next((i for i in range(size) if random.random() >= self.keeps), size)
            round_s = self.draft * size + self.check + self.check_token * size
            given = min(kept + 1, left)
            policy.report_proposal(given, round_s)
            spent += round_s
            left -= given
        if left > 0:
            policy.report_decoded(left, float(left))
        return spent + max(0, left)


@pytest.mark.parametrize("proposes", [False, True])
@pytest.mark.parametrize("length", [12, 30, 400])
@pytest.mark.parametrize("draft", [0.01, 0.125, 0.5, 1.0, 2.0])
def test_a_hopeless_draft_costs_at_most_five_percent(draft: float, length: int, proposes: bool) -> None:
    """Of every request of 500 tokens or more, the first included."""
    policy, random = AdaptivePolicy(), Random(1)
    costs = Costs(draft, accepts=0.0, length=length)
    for _ in range(6):
        written = -(-500 // length) * length  # whole segments
        assert costs.seconds(policy, 500, random, proposes=proposes) <= 1.05 * written


@pytest.mark.parametrize("length", [12, 30, 60, 200])
@pytest.mark.parametrize("draft", [0.02, 0.125, 0.25])
def test_a_good_draft_is_used_from_the_start(draft: float, length: int) -> None:
    random = Random(2)
    costs = Costs(draft, accepts=0.85, length=length)
    always = sum(costs.seconds(AlwaysSpeculate(), 800, random) for _ in range(20))
    policy = AdaptivePolicy()
    first = costs.seconds(policy, 800, random)
    rest = sum(costs.seconds(policy, 800, random) for _ in range(19))
    assert first <= 800 * 1.02
    assert first + rest <= 1.1 * always


def test_between_them_it_takes_the_better_side() -> None:
    """Where one accepted segment in ten does not pay for nine drafts, the target writes; at three in ten it does."""
    for accepts, limit in ((0.1, 1.03), (0.3, 1.0)):
        policy, random = AdaptivePolicy(), Random(3)
        costs = Costs(0.125, accepts, check=1.3, check_token=0.05)
        assert costs.seconds(policy, 20_000, random) <= limit * 20_000


def test_a_pair_that_turns_bad_is_noticed() -> None:
    policy, random = AdaptivePolicy(), Random(4)
    Costs(0.125, accepts=0.9).seconds(policy, 5_000, random)
    assert Costs(0.125, accepts=0.0).seconds(policy, 1_000, random) <= 1.05 * 1_020


def test_a_pair_that_turns_good_is_noticed() -> None:
    policy, random = AdaptivePolicy(), Random(5)
    Costs(0.125, accepts=0.0).seconds(policy, 5_000, random)
    assert Costs(0.125, accepts=0.9).seconds(policy, 5_000, random) <= 0.6 * 5_000


def test_proposals_are_used_where_segments_fail() -> None:
    policy, random = AdaptivePolicy(), Random(6)
    costs = Costs(0.05, accepts=0.0, keeps=0.8)
    assert costs.seconds(policy, 3_000, random, proposes=True) <= 0.6 * 3_000


def test_segments_must_beat_proposals() -> None:
    """Keeping half of the segments saves something, but less than proposals do where they are kept nearly always."""
    random = Random(7)
    costs = Costs(0.02, accepts=0.3, keeps=0.98, check=1.0, check_token=0.0)
    by_tokens = Costs(0.02, accepts=0.0, keeps=0.98, check=1.0, check_token=0.0)
    policy = AdaptivePolicy()
    assert costs.seconds(policy, 5_000, random, proposes=True) <= 1.15 * by_tokens.seconds(
        AdaptivePolicy(), 5_000, random, proposes=True
    )
