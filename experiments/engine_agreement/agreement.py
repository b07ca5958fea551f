"""Compares probe decisions between engines: segments are recorded once and judged with each engine.

The recorded segments are those that a pair drafts while it answers. Every engine scores the same ids in the same
contexts. Each segment has its own random number, so verdicts differ only where estimates do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from statistics import median, quantiles

from semanticspec.config import DecodingConfig, RuleConfig
from semanticspec.decoding.draft import Draft
from semanticspec.decoding.generate import decode, result_of
from semanticspec.decoding.pair import Pair
from semanticspec.decoding.transcript import Transcript
from semanticspec.decoding.verifiers.semantic import acceptance_probability
from semanticspec.engines.base import derived_seed
from semanticspec.records import Verdict


@dataclass(frozen=True, slots=True)
class RecordedSegment:
    """A drafted segment with its context, in each model's ids."""

    target_context: tuple[int, ...]
    target_ids: tuple[int, ...]
    draft_context: tuple[int, ...]
    draft_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """The estimates and the verdict on a segment, with one engine."""

    p_target: float
    p_draft: float
    accepted: bool


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two engines on the same segments.

    Attributes:
        same: number of equal verdicts.
        target, draft: absolute differences of the probes' estimates: median, 95th percentile and maximum.
    """

    num_segments: int
    same: int
    target: tuple[float, float, float]
    draft: tuple[float, float, float]

    @property
    def share(self) -> float:
        """The share of equal verdicts."""
        return self.same / self.num_segments


class _Recorder:
    """Listens to a request and records its drafted segments as they are verified."""

    def __init__(self) -> None:
        self.recorded: list[RecordedSegment] = []

    def on_verdict(self, transcript: Transcript, draft: Draft, verdict: Verdict) -> None:  # noqa: ARG002
        self.recorded.append(
            RecordedSegment(
                tuple(transcript.target_ids),
                draft.token_ids,
                tuple(transcript.draft_ids),
                draft.generation.token_ids,
            )
        )


async def record(pair: Pair, prompt: str, config: DecodingConfig) -> list[RecordedSegment]:
    """Returns the segments that a pair drafts and verifies while it answers a prompt."""
    recorder = _Recorder()
    await result_of(decode(pair, prompt, config, listener=recorder))
    return recorder.recorded


async def judge(pair: Pair, segment: RecordedSegment, rule: RuleConfig, seed: int) -> Judged:
    """Returns the estimates and the verdict of the pair's engines and probes; `seed` is the segment's own."""
    assert pair.target_probe is not None
    assert pair.draft_probe is not None
    (of_target,) = await pair.target.engine.score(segment.target_context, [segment.target_ids], signals=True)
    (of_draft,) = await pair.draft.engine.score(segment.draft_context, [segment.draft_ids])
    p_target, p_draft = pair.target_probe.estimate(of_target), pair.draft_probe.estimate(of_draft)
    uniform = Random(derived_seed(seed, "agreement")).random()
    return Judged(p_target, p_draft, uniform < acceptance_probability(rule, p_target, p_draft))


def compare(first: Sequence[Judged], second: Sequence[Judged]) -> Agreement:
    """Compares the judgements of two engines on the same segments, two or more."""
    pairs = list(zip(first, second, strict=True))
    return Agreement(
        len(pairs),
        sum(one.accepted == other.accepted for one, other in pairs),
        _figures([abs(one.p_target - other.p_target) for one, other in pairs]),
        _figures([abs(one.p_draft - other.p_draft) for one, other in pairs]),
    )


def _figures(differences: Sequence[float]) -> tuple[float, float, float]:
    return median(differences), quantiles(differences, n=20, method="inclusive")[-1], max(differences)
