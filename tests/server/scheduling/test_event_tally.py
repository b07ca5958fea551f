"""Counts from events against those that the decoding loop reports."""

from __future__ import annotations

from dataclasses import replace

import pytest

from semanticspec.decoding.generate import decode
from semanticspec.records import Finished, Result, Segment
from semanticspec.server.scheduling.event_tally import EventTally
from tests.support.scripted_pairs import segment_texts
from tests.support.serving import CONFIG, events_of, live, own_result, scripted_pair

COUNTS = (
    "prompt_tokens",
    "num_tokens",
    "draft_tokens",
    "drafted_tokens",
    "segments_accepted",
    "segments_rejected",
)
CHANGES = [
    {},
    {"partial_acceptance": True},
    {"num_speculative_tokens": 4},
    {"first_segment": "target"},
    {"bonus_token": True},
    {"overlap": True},
    {"speculate": False},
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
async def test_counts_equal_those_of_the_result(changes) -> None:
    for seed in range(5):
        tally, result = EventTally(), None
        async for event in decode(scripted_pair(), "a", replace(CONFIG, seed=seed, **changes)):
            tally.add(event)
            if isinstance(event, Finished):
                result = event.result
        assert isinstance(result, Result)
        stats = tally.stats(result.stats.prompt_tokens)
        assert [getattr(stats, name) for name in COUNTS] == [getattr(result.stats, name) for name in COUNTS]
        assert segment_texts(tally.segments) == result.text
        assert judged(tally.segments) == judged(result.segments)
        assert [s for s in tally.segments if s.author == "draft"] == [
            s for s in result.segments if s.author == "draft"
        ]
        assert stats.draft_s + stats.verify_s + stats.rewrite_s <= stats.wall_s


def judged(segments) -> list[Segment]:
    return [segment for segment in segments if segment.accepted is not None]


async def test_an_output_that_a_stop_string_ends_is_counted_up_to_there() -> None:
    own = await own_result()
    stop = own.text[-3:]
    async with live(scripted_pair()) as server:
        whole = (await server.chat(stop=stop, speculation={"segments": True})).json()
        chunks = await events_of(await server.chat(stop=stop, stream=True))
        figures = await server.metrics()
    semantic = whole["metrics"]["semantic"]
    assert whole["usage"]["completion_tokens"] == own.stats.num_tokens - 1  # all but the end of text
    assert semantic["num_segments_accepted"] == own.stats.segments_accepted
    assert semantic["num_segments_rejected"] == own.stats.segments_rejected
    assert semantic["seconds"]["wall"] > 0
    texts = [segment["text"] for segment in semantic["segments"] if segment["accepted"] is not False]
    assert "".join(texts) == own.text
    assert chunks[-1]["metrics"]["semantic"]["num_segments_rejected"] == own.stats.segments_rejected
    prefix = "semanticspec:"
    assert figures[f"{prefix}generation_tokens_total"] == 2 * whole["usage"]["completion_tokens"]
    assert figures[f"{prefix}spec_decode_num_draft_tokens_total"] == 2 * own.stats.drafted_tokens
    assert figures[f"{prefix}prompt_tokens_total"] == 2 * own.stats.prompt_tokens
