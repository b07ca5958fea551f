"""Speed-ups that follow from costs, against hand-made figures; and costs of an engine whose speed is known."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from semanticspec.decoding.pair import Model, Pair
from semanticspec.doctor.costs import Costs, measure_costs
from semanticspec.engines.scripted import ScriptedEngine
from tests.support.scripted_pairs import draft_says, make_pair, target_says
from tests.support.vocabularies import make_vocabulary

COSTS = Costs(target_token_s=0.1, draft_token_s=0.025, verify_s={1: 0.1, 8: 0.14, 32: 0.2})


def test_costs_are_in_target_tokens_and_interpolated():
    assert COSTS.draft_cost == pytest.approx(0.25)
    assert COSTS.verify_cost(1) == pytest.approx(1.0)
    assert COSTS.verify_cost(8) == pytest.approx(1.4)
    assert COSTS.verify_cost(20) == pytest.approx(1.7)
    assert COSTS.verify_cost(500) == pytest.approx(2.0)


def test_the_limit_is_reached_with_every_segment_kept():
    assert COSTS.segment_limit(32) == pytest.approx(32 / (32 * 0.25 + 2.0))


def test_token_level_speculation_by_hand():
    assert COSTS.token_speedup(0.0) == pytest.approx(1 / 1.25)  # one proposed token, the target's own stands
    assert COSTS.token_speedup(1.0) == pytest.approx(9 / (8 * 0.25 + 1.4))
    needed = COSTS.break_even_acceptance()
    assert needed is not None
    assert COSTS.token_speedup(needed) == pytest.approx(1.0, abs=1e-6)
    slow = Costs(target_token_s=0.1, draft_token_s=0.2, verify_s={1: 0.1, 8: 0.1, 32: 0.1})
    assert slow.break_even_acceptance() is None


class Slow(ScriptedEngine):
    """Takes so many seconds per generated token, and per pass."""

    token_s = pass_s = 0.0

    async def generate(self, context_ids: Any, **options: Any) -> Any:
        generations = await super().generate(context_ids, **options)
        await asyncio.sleep(self.token_s * len(generations[0].token_ids))
        return generations

    async def score(self, *arguments: Any, **options: Any) -> Any:
        await asyncio.sleep(self.pass_s)
        return await super().score(*arguments, **options)


def test_measured_costs_are_those_of_the_engines():
    vocabulary = make_vocabulary()
    target, draft = Slow(target_says, 9), Slow(draft_says, 9)
    target.token_s, target.pass_s, draft.token_s = 0.004, 0.01, 0.001
    costs = asyncio.run(measure_costs(Pair(Model(target, vocabulary), Model(draft, vocabulary)), 1, "a"))
    assert costs.target_token_s == pytest.approx(0.004, rel=0.8)
    assert costs.target_token_s > 2 * costs.draft_token_s
    assert all(seconds >= 0.01 for seconds in costs.verify_s.values())


def test_acceptance_is_measured_where_token_level_speculation_is_available():
    costs = asyncio.run(measure_costs(make_pair(), 1, "a"))
    assert costs.token_acceptance is not None
    assert 0 < costs.token_acceptance < 1
    vocabulary, other = make_vocabulary(), make_vocabulary(["d", "c", "b", "a"])
    pair = Pair(
        Model(ScriptedEngine(target_says, 9), vocabulary), Model(ScriptedEngine(draft_says, 9), other)
    )
    assert asyncio.run(measure_costs(pair, 1, "a")).token_acceptance is None
