"""`score` of every engine against the oracle. Tolerance: see test_generation."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch

from semanticspec.engines.base import position_uniform
from semanticspec.engines.runtime import scoring
from semanticspec.engines.runtime.worker import WorkerEngine
from semanticspec.engines.scripted import draw
from semanticspec.engines.transformers import prefill
from semanticspec.engines.transformers import scoring as transformers_scoring
from semanticspec.errors import EngineError
from semanticspec.records import GREEDY, Sampling, Score, Stop
from tests.support.distributions import dense
from tests.support.subjects import Subject

CONTEXT = [3, 14, 15, 9, 26, 5, 35, 8]
SEGMENT = [9, 7, 9, 3, 23, 8, 46, 2, 6, 43]
SAMPLING = Sampling(temperature=0.8, top_p=0.9)
TOLERANCE = 1e-4


def check(score: Score, subject: Subject, context: list[int], segment: list[int]) -> None:
    """Compares a score with the oracle, except for what depends on the sampling settings and for the signals."""
    whole = [*context, *segment]
    predicting = slice(len(context) - 1, len(whole) - 1)
    rows = subject.logprobs(whole)[predicting]
    chosen = rows.gather(1, torch.tensor(segment)[:, None])
    torch.testing.assert_close(torch.tensor(score.logprobs), chosen[:, 0], atol=TOLERANCE, rtol=0)
    state = subject.states(whole)[predicting].mean(0)
    torch.testing.assert_close(score.pooled_state, state, atol=TOLERANCE, rtol=0)


def check_signals(score: Score, subject: Subject, context: list[int], segment: list[int]) -> None:
    """Compares ranks, argmax ids, entropies and margins with the oracle."""
    rows = subject.logprobs([*context, *segment])[len(context) - 1 : -1]
    chosen = rows.gather(1, torch.tensor(segment)[:, None])
    assert score.ranks == tuple((1 + (rows > chosen).sum(1)).tolist())
    assert score.argmax_ids == tuple(rows.argmax(1).tolist())
    if not subject.engine.info.capabilities.entropies:
        assert score.entropies == ()
    else:
        entropies = torch.distributions.Categorical(logits=rows).entropy()
        torch.testing.assert_close(torch.tensor(score.entropies), entropies, atol=TOLERANCE, rtol=0)
    if not subject.engine.info.capabilities.margins:
        assert score.margins == ()
    else:
        best, second = rows.topk(2).values.unbind(1)
        torch.testing.assert_close(torch.tensor(score.margins), best - second, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("signals", [False, True])
async def test_score_equals_the_oracle(subject: Subject, signals: bool) -> None:
    (score,) = await subject.engine.score(CONTEXT, [SEGMENT], signals=signals)
    check(score, subject, CONTEXT, SEGMENT)
    if signals:
        check_signals(score, subject, CONTEXT, SEGMENT)
    assert score.next_token_id is None
    assert score.distributions is None


async def test_a_context_and_a_continuation_of_one_token(subject: Subject) -> None:
    (score,) = await subject.engine.score([5], [[7]])
    check(score, subject, [5], [7])


async def test_repeated_scores_and_a_longer_call_between(subject: Subject) -> None:
    first, second = [(await subject.engine.score(CONTEXT, [SEGMENT]))[0] for _ in range(2)]
    await subject.engine.score([*CONTEXT, *SEGMENT], [SEGMENT])
    (third,) = await subject.engine.score(CONTEXT, [SEGMENT])
    for score in (first, second, third):
        check(score, subject, CONTEXT, SEGMENT)


async def test_score_after_generate_equals_a_cold_score(subject: Subject) -> None:
    (generated,) = await subject.engine.generate(
        CONTEXT, max_tokens=15, stop=Stop(), sampling=SAMPLING, seed=8, request_id="warm"
    )
    (warm,) = await subject.engine.score(CONTEXT, [generated.token_ids], request_id="warm")
    (cold,) = await subject.fresh().score(CONTEXT, [generated.token_ids])
    for score in (warm, cold):
        check(score, subject, CONTEXT, list(generated.token_ids))
    both = torch.tensor([generated.logprobs, warm.logprobs])
    torch.testing.assert_close(both[0], both[1], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(warm.pooled_state, generated.pooled_state, atol=TOLERANCE, rtol=0)


async def test_several_continuations_equal_single_ones(subject: Subject) -> None:
    continuations = [SEGMENT, SEGMENT[:1], [1, 2, 3], SEGMENT[3:]]
    can = subject.engine.info.capabilities
    options: Any = {"sampling": SAMPLING, "seed": 6, "distributions": can.distributions}
    scores = await subject.engine.score(CONTEXT, continuations, signals=True, **options)
    for score, continuation in zip(scores, continuations, strict=True):
        check(score, subject, CONTEXT, continuation)
        check_signals(score, subject, CONTEXT, continuation)
        (single,) = await subject.engine.score(CONTEXT, [continuation], **options)
        assert score.next_token_id == single.next_token_id
        if not can.distributions:
            continue
        size = subject.engine.info.vocabulary_size
        rows = [dense(one.distributions, size) for one in (score, single)]
        torch.testing.assert_close(*rows, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("sampling", [SAMPLING, GREEDY, Sampling(1.0, 1.0)])
async def test_next_token_and_distributions(subject: Subject, sampling: Sampling) -> None:
    subject.needs("distributions", "position_seeds")
    (score,) = await subject.engine.score(CONTEXT, [SEGMENT], sampling=sampling, seed=12, distributions=True)
    whole = [*CONTEXT, *SEGMENT]
    rows = dense(score.distributions, subject.engine.info.vocabulary_size)
    assert len(rows) == len(SEGMENT) + 1
    for index, row in enumerate(rows):
        expected = subject.distribution(whole[: len(CONTEXT) + index], sampling)
        torch.testing.assert_close(row, torch.tensor(expected), atol=TOLERANCE, rtol=0)
    expected_id = draw(subject.distribution(whole, sampling), position_uniform(12, len(whole)))
    assert score.next_token_id == expected_id


async def test_the_next_token_equals_the_one_of_generate(subject: Subject) -> None:
    (score,) = await subject.engine.score(CONTEXT, [SEGMENT], sampling=SAMPLING, seed=21)
    (generated,) = await subject.engine.generate(
        [*CONTEXT, *SEGMENT], max_tokens=1, stop=Stop(), sampling=SAMPLING, seed=21
    )
    assert (score.next_token_id,) == generated.token_ids


async def test_long_texts_are_prefilled_in_chunks(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks that end before, in and after the predicting positions, and logits a few rows at a time."""
    subject.needs("position_seeds")
    monkeypatch.setattr(transformers_scoring, "_MAX_LOGITS", 4 * 61)
    for chunk in (3, 7, 8, 11):
        monkeypatch.setattr(prefill, "CHUNK_TOKENS", chunk)
        context = [chunk, *CONTEXT]  # not cached yet
        (score,) = await subject.engine.score(context, [SEGMENT], sampling=SAMPLING, signals=True)
        check(score, subject, context, SEGMENT)
        check_signals(score, subject, context, SEGMENT)
        (generated,) = await subject.engine.generate(
            [chunk, chunk, *CONTEXT], max_tokens=8, stop=Stop(), sampling=SAMPLING
        )
        assert generated.token_ids == subject.continuation([chunk, chunk, *CONTEXT], 8, SAMPLING)


@pytest.mark.parametrize("continuations", [[], [[]], [[1], []]])
async def test_empty_continuations_are_refused(engine: WorkerEngine, continuations: list[list[int]]) -> None:
    with pytest.raises(EngineError, match="none of them empty"):
        await engine.score(CONTEXT, continuations)


async def test_continuations_of_different_lengths(subject: Subject) -> None:
    """Long and short continuations run in separate passes, since padding would cost more."""
    continuations = [SEGMENT[:2], SEGMENT * 20, SEGMENT[:3], SEGMENT * 21]
    scores = await subject.engine.score(CONTEXT, continuations)
    for score, continuation in zip(scores, continuations, strict=True):
        check(score, subject, CONTEXT, continuation)


def test_batches_hold_little_padding() -> None:
    lengths = [20, 500, 22, 25, 480, 24]
    assert transformers_scoring._group_by_length(lengths) == [[0, 2, 5, 3], [4, 1]]
    assert transformers_scoring._group_by_length([3]) == [[0]]
    assert transformers_scoring._group_by_length([500] * 20) == [
        [*range(8)],
        [*range(8, 16)],
        [*range(16, 20)],
    ]


def test_entropy_of_impossible_tokens_is_a_number() -> None:
    logits = torch.tensor([[0.0, float("-inf"), 0.0], [5.0, float("-inf"), float("-inf")]])
    assert scoring.entropy(logits).flatten().tolist() == pytest.approx([0.6931472, 0.0])


async def test_concurrent_scores_with_shared_prefixes_equal_single_ones(subject: Subject) -> None:
    """A request whose cached prefix another request shares must not lose or gain states."""
    contexts = [CONTEXT[:length] + tail for length in (2, 5, 8) for tail in ([], [11, 12], [11, 13, 14])][:8]
    segments = [SEGMENT[n % 3 :] if n % 2 else SEGMENT[: 1 + n] for n in range(8)]

    async def score(number: int) -> Score:
        (one,) = await subject.engine.score(
            contexts[number], [segments[number]], request_id=f"shared {number}"
        )
        return one

    for _ in range(2):  # the second time every context is in the prefix cache
        together = await asyncio.gather(*(score(number) for number in range(8)))
        for number, one in enumerate(together):
            check(one, subject, contexts[number], segments[number])
            alone = await score(number)
            torch.testing.assert_close(one.pooled_state, alone.pooled_state, atol=TOLERANCE, rtol=0)
    twins = await asyncio.gather(*(subject.engine.score(CONTEXT, [SEGMENT]) for _ in range(8)))
    for (one,) in twins:
        check(one, subject, CONTEXT, SEGMENT)


async def test_concurrent_scores_and_generations_with_shared_prefixes_keep_their_states(
    subject: Subject,
) -> None:
    scores = [subject.engine.score([*CONTEXT, *SEGMENT[:n]], [SEGMENT[n:]]) for n in range(4)]
    generations = [
        subject.engine.generate(
            [*CONTEXT, *SEGMENT[:n]], max_tokens=6, stop=Stop(), sampling=SAMPLING, seed=n
        )
        for n in range(4)
    ]
    results = await asyncio.gather(*scores, *generations)
    for n, (one,) in enumerate(results[:4]):
        check(one, subject, [*CONTEXT, *SEGMENT[:n]], SEGMENT[n:])
    for n, (one,) in enumerate(results[4:]):
        context = [*CONTEXT, *SEGMENT[:n]]
        whole = [*context, *one.token_ids]
        states = subject.states(whole)[len(context) - 1 : len(whole) - 1].mean(0)
        torch.testing.assert_close(one.pooled_state, states, atol=TOLERANCE, rtol=0)
