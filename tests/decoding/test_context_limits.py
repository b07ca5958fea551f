"""Prompts and outputs up to the limits of both contexts."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest

from semanticspec import DecodingConfig, decode, generate
from semanticspec.config import RULES, target_alone
from semanticspec.decoding.pair import Model, Pair
from semanticspec.engines.scripted import ScriptedEngine
from semanticspec.errors import PromptError
from semanticspec.records import GREEDY, Event, Finished, Result, SpeculationEnded
from tests.support.scripted_pairs import BLANK, FixedProbe, config, row
from tests.support.vocabularies import make_vocabulary

LIMIT = 40
OPTIMIZATIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "default": {"partial_acceptance": True, "num_speculative_tokens": 8},
    "overlap": {"overlap": True},
}


def says(ids: Sequence[int]) -> list[float]:
    """Segments of five letters, without an end."""
    since = next((n for n, i in enumerate(reversed(ids)) if i == BLANK), len(ids))
    return row(a=5, b=3, c=1) if since < 5 else row(blank=1)


def make_pair(target_context: int, draft_context: int) -> Pair:
    vocabulary = make_vocabulary()
    models = [
        Model(ScriptedEngine(says, 9, max_context_tokens=limit), vocabulary)
        for limit in (target_context, draft_context)
    ]
    return Pair(*models, FixedProbe(0.5), FixedProbe(1.0))


def prompt_of(num_tokens: int) -> str:
    prompt = "a" * num_tokens
    while (n := len(make_vocabulary().render_prompt(prompt))) > num_tokens:
        prompt = prompt[: num_tokens - n]
    return prompt


async def run(pair: Pair, prompt: str, decoding: DecodingConfig) -> tuple[list[Event], Result]:
    async with aclosing(decode(pair, prompt, decoding)) as stream:
        events = [event async for event in stream]
    assert isinstance(events[-1], Finished)
    return events, events[-1].result


@pytest.mark.parametrize("k", range(9))
@pytest.mark.parametrize("optimizations", OPTIMIZATIONS)
@pytest.mark.parametrize("rule", RULES)
def test_a_prompt_close_to_the_limit_is_answered_up_to_it(rule: str, optimizations: str, k: int) -> None:
    pair = make_pair(LIMIT, LIMIT)
    decoding = config(rule, **OPTIMIZATIONS[optimizations])
    if k == 0:
        with pytest.raises(PromptError, match=f"target's context of {LIMIT} tokens must hold"):
            generate(pair, prompt_of(LIMIT), decoding)
        return
    result = generate(pair, prompt_of(LIMIT - k), decoding)
    assert len(result.token_ids) == k
    assert result.finish_reason == "length"


@pytest.mark.parametrize("prompt_tokens", [5, 12, *range(LIMIT - 8, LIMIT + 1), LIMIT + 20])
@pytest.mark.parametrize("optimizations", OPTIMIZATIONS)
@pytest.mark.parametrize("rule", RULES)
async def test_the_target_streams_on_where_the_drafts_context_ends(
    rule: str, optimizations: str, prompt_tokens: int
) -> None:
    pair = make_pair(LIMIT + 120, LIMIT)
    events, result = await run(pair, prompt_of(prompt_tokens), config(rule, **OPTIMIZATIONS[optimizations]))
    assert len(result.token_ids) == 100
    told = [event for event in events if isinstance(event, SpeculationEnded)]
    assert told == [result.speculation_ended]
    assert told[0].reason == "the draft's context is used up"
    assert abs(told[0].num_tokens - max(0, LIMIT - prompt_tokens)) <= 8
    assert isinstance(pair.target.engine, ScriptedEngine)
    assert pair.target.engine.calls[-1] == "stream"
    assert pair.target.engine.calls.count("stream") <= 2 + result.stats.segments_rejected
    assert pair.target.engine.calls.count("generate") == 0, "no calls of a single token"


@pytest.mark.parametrize("optimizations", OPTIMIZATIONS)
def test_the_output_stays_the_targets_own(optimizations: str) -> None:
    decoding = config("never", sampling=GREEDY, **OPTIMIZATIONS[optimizations])
    alone = generate(make_pair(LIMIT + 120, LIMIT), prompt_of(12), target_alone(decoding))
    helped = generate(make_pair(LIMIT + 120, LIMIT), prompt_of(12), decoding)
    assert helped.token_ids == alone.token_ids
    assert alone.speculation_ended is None


def test_a_draft_with_room_for_everything_is_never_told_to_be_full() -> None:
    result = generate(make_pair(LIMIT + 120, LIMIT + 120), prompt_of(12), config("always"))
    assert result.speculation_ended is None


def test_the_limit_of_the_answer_still_counts_from_its_beginning() -> None:
    """The draft's context ends in the thinking, which a limit of the answer must not cut."""

    def thinks(ids: Sequence[int]) -> list[float]:
        output = len(ids)
        return row(end=1) if output == LIMIT + 30 else says(ids)

    vocabulary = make_vocabulary()
    models = [Model(ScriptedEngine(thinks, 9, max_context_tokens=n), vocabulary) for n in (400, LIMIT)]
    pair = Pair(*models, FixedProbe(0.5), FixedProbe(1.0))
    result = generate(pair, prompt_of(12), config("always", max_answer_tokens=7, max_new_tokens=300))
    thinking = LIMIT + 30 - 12 + 1
    assert len(result.token_ids) == thinking + 7
