"""Scripted pairs whose probabilities are known, and configurations for them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing

from semanticspec import DecodingConfig, RuleConfig, decode
from semanticspec.decoding.pair import Model, Pair
from semanticspec.engines.scripted import ScriptedEngine
from semanticspec.records import Sampling, Segment
from tests.support.vocabularies import make_vocabulary

A, B, C, D, NEWLINE, BLANK, EOS, THINK, THINK_END = range(9)
RAW = Sampling(temperature=1.0, top_p=1.0)


def row(**weights: float) -> list[float]:
    names = {"a": A, "b": B, "c": C, "d": D, "blank": BLANK, "eos": EOS, "end": THINK_END}
    probabilities = [0.0] * 9
    for name, weight in weights.items():
        probabilities[names[name]] = weight
    total = sum(probabilities)
    return [p / total for p in probabilities]


def target_says(ids: tuple[int, ...]) -> list[float]:
    """Segments of three letters, thinking ends after four segments, then a two-letter answer."""
    output = ids[1:]
    if THINK_END in output:
        return row(d=1) if len(output) - output.index(THINK_END) < 3 else row(eos=1)
    since = next((n for n, i in enumerate(reversed(output)) if i == BLANK), len(output))
    if output.count(BLANK) >= 4:
        return row(end=1)
    return row(a=5, b=3, c=1) if since < 3 else row(blank=1)


def draft_says(ids: tuple[int, ...]) -> list[float]:
    """The same shape, other letters."""
    probabilities = list(target_says(ids))
    probabilities[A], probabilities[C] = probabilities[C], probabilities[A]
    return probabilities


class FixedProbe:
    def __init__(self, probability: float) -> None:
        self.probability = probability

    def estimate(self, reading) -> float:
        assert reading.pooled_state.shape == (9,)
        return self.probability


def make_pair(p_target: float = 0.5, p_draft: float = 1.0, **engine) -> Pair:
    vocabulary = make_vocabulary()
    return Pair(
        Model(ScriptedEngine(target_says, 9, **engine), vocabulary),
        Model(ScriptedEngine(draft_says, 9, **engine), vocabulary),
        FixedProbe(p_target),
        FixedProbe(p_draft),
    )


def config(rule: str = "semantic", **changes) -> DecodingConfig:
    """A configuration without optimizations, unless `changes` turn them on."""
    plain = {"sampling": RAW, "max_new_tokens": 100, "partial_acceptance": False, "num_speculative_tokens": 0}
    return DecodingConfig(rule=RuleConfig(name=rule), **plain | changes)


async def collect(pair: Pair, decoding: DecodingConfig):
    async with aclosing(decode(pair, "a", decoding)) as events:
        return [event async for event in events]


def segment_texts(segments: Sequence[Segment]) -> str:
    """The output's text from its segments: all but the rejected ones."""
    return "".join(segment.text for segment in segments if segment.accepted is not False)
