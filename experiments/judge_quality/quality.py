"""Measures judges on pairs of segments for which the right answer is known.

Sources of pairs: the demo's grammar, which decides without doubt whether two steps mean the same; segments that models
wrote about the demo's problems; and any JSONL file of labelled sentence pairs.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, model_validator

from semanticspec.errors import ConfigError
from semanticspec.output.validation import parse_json
from semanticspec.training.labels.judges.base import Clustering, Judge, Question

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class KnownPair:
    """A question with its right answer; `kind` tells how the pair was made."""

    question: Question
    same: bool
    kind: str


class Figure(NamedTuple):
    """A value with its 95 % interval, bootstrapped over pairs."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Quality:
    """The quality of a judge; the positive class is "the same".

    Attributes:
        precision, recall, f1, accuracy: as usual.
        by_kind: for each kind of pair the share of right answers and the number of pairs.
    """

    num_pairs: int
    num_same: int
    precision: Figure
    recall: Figure
    f1: Figure
    accuracy: Figure
    by_kind: dict[str, tuple[float, int]]


def judge_pairs(judge: Judge, pairs: Sequence[KnownPair]) -> list[bool]:
    """Asks a judge about each pair independently."""
    if isinstance(judge, Clustering):
        return judge.pairs.same([pair.question for pair in pairs])
    answers = []
    for pair in pairs:
        asked = pair.question
        first, second = judge.keys(asked.problem, asked.context, [asked.first, asked.second])
        answers.append(first == second)
    return answers


def measure(pairs: Sequence[KnownPair], answers: Sequence[bool], seed: int = 0) -> Quality:
    """Compares a judge's answers with the right ones.

    Raises:
        ConfigError: all pairs are the same, or all are different.
    """
    import numpy as np

    truth = np.array([pair.same for pair in pairs], dtype=bool)
    said = np.array(answers, dtype=bool)
    if not truth.any() or truth.all():
        raise ConfigError(
            "all pairs have the same answer; expected pairs that mean the same and pairs that do not"
        )
    picks = np.random.default_rng(seed).integers(len(pairs), size=(RESAMPLES, len(pairs)))
    samples = _figures(truth[picks], said[picks])
    figures = {
        name: Figure(float(value), *np.percentile(samples[name], [2.5, 97.5]).tolist())
        for name, value in _figures(truth, said).items()
    }
    kinds: dict[str, list[bool]] = {}
    for pair, answer in zip(pairs, answers, strict=True):
        kinds.setdefault(pair.kind, []).append(pair.same == answer)
    by_kind = {kind: (sum(right) / len(right), len(right)) for kind, right in sorted(kinds.items())}
    return Quality(len(pairs), int(truth.sum()), by_kind=by_kind, **figures)


def _figures(truth: Any, said: Any) -> dict[str, Any]:
    """Reduces the last axis of `[..., pairs]`; precision is 0 if no pair is called the same."""
    import numpy as np

    hits, true, called = (truth & said).sum(-1), truth.sum(-1), said.sum(-1)
    return {
        "precision": hits / np.maximum(called, 1),
        "recall": hits / np.maximum(true, 1),
        "f1": 2 * hits / np.maximum(true + called, 1),
        "accuracy": (truth == said).mean(-1),
    }


def demo_pairs(count: int, seed: int = 0) -> list[KnownPair]:
    """Makes pairs of steps of demo problems (validation split), half of them with the same meaning.

    The first step is in the target's wording. The second one is in the draft's: the same step or, in equal shares, one
    with a wrong number, a wrong operation (with a new or the old result) or a wrong person, or another step of the same
    problem. The right answer comes from parsing both texts, not from how they were made.
    """
    from semanticspec.demo.grammar import problems, read_step, same_meaning

    rng = random.Random(f"judge quality {seed}")
    makers = {
        "reworded": _reworded,
        "wrong number": _wrong_number,
        "wrong operation": _wrong_operation,
        "wrong person": _wrong_person,
        "another step": _another_step,
    }
    wrong = [kind for kind in makers if kind != "reworded"]
    found: list[KnownPair] = []
    stories = iter(problems("validation", 4 * count + 50, seed))
    while len(found) < count:
        number = len(found)
        kind = "reworded" if number % 2 == 0 else wrong[number // 2 % len(wrong)]
        problem = next(stories)
        place = rng.randrange(len(problem.steps))
        first = _words(problem.steps[place], problem.verbs[place], "target", rng)
        second = makers[kind](problem, place, rng)
        meanings = [read_step(text) for text in (first, second)] if second else [None]
        if None in meanings or first == second:
            continue
        context = "".join(
            _words(meaning, verb, "target", rng) + "\n\n"
            for meaning, verb in zip(problem.steps[:place], problem.verbs[:place], strict=True)
        )
        question = Question(problem.text, context, first, second)
        found.append(KnownPair(question, same_meaning(*meanings), kind))
    return found


def _words(meaning: Any, verb: str, style: Any, rng: random.Random) -> str:
    from semanticspec.demo.grammar import write_step
    from semanticspec.demo.traces import pick_wording

    return write_step(meaning, verb, pick_wording(style, rng))


def _reworded(problem: Any, place: int, rng: random.Random) -> str:
    return _words(problem.steps[place], problem.verbs[place], "draft", rng)


def _wrong_number(problem: Any, place: int, rng: random.Random) -> str:
    """Changes the result or an operand of the step."""
    step, off = problem.steps[place], rng.choice((-10, -2, -1, 1, 2, 10))
    if step.operation in ("start", "final"):
        changed = replace(step, operands=(step.operands[0] + off,), result=step.operands[0] + off)
    elif rng.random() < 0.5:
        changed = replace(step, result=step.result + off)
    else:
        which = rng.randrange(len(step.operands))
        operands = tuple(value + off * (i == which) for i, value in enumerate(step.operands))
        changed = replace(step, operands=operands)
    return _words(changed, problem.verbs[place], "draft", rng)


def _wrong_operation(problem: Any, place: int, rng: random.Random) -> str:
    """Swaps the operation, such as a gain and a loss; empty if the step has no counterpart."""
    step = problem.steps[place]
    counterparts = {
        "gain": ("lose", "loses"),
        "lose": ("gain", "gets"),
        "double": ("halve", ""),
        "halve": ("double", ""),
        "more": ("fewer", ""),
        "fewer": ("more", ""),
        "total": ("difference", ""),
        "difference": ("total", ""),
    }
    if step.operation not in counterparts:
        return ""
    operation, verb = counterparts[step.operation]
    changed = replace(step, operation=operation)
    if rng.random() < 0.5:
        changed = replace(changed, result=changed.expected_result())
    return _words(changed, verb, "draft", rng)


def _wrong_person(problem: Any, place: int, rng: random.Random) -> str:
    from semanticspec.demo.wordings import NAMES

    step = problem.steps[place]
    changed = replace(step, who=rng.choice([name for name in NAMES if name not in (step.who, step.other)]))
    return _words(changed, problem.verbs[place], "draft", rng)


def _another_step(problem: Any, place: int, rng: random.Random) -> str:
    other = rng.choice([i for i in range(len(problem.steps)) if i != place])
    return _words(problem.steps[other], problem.verbs[other], "draft", rng)


def collected_pairs(folder: Path, count: int, seed: int = 0) -> list[KnownPair]:
    """Samples pairs of different segments that models wrote in the same context.

    Args:
        folder: a collection of demo problems. The grammar gives the right answers; segments that it cannot parse are
            left out.
        count: number of pairs; how many of them are the same is up to the models.
        seed: of the sample.

    Raises:
        ProbeError: there is no collection.
        ConfigError: it has too few pairs that can be parsed.
    """
    from semanticspec.demo.grammar import read_step, same_meaning
    from semanticspec.training.data.storage import Collection

    found: list[KnownPair] = []
    for shard in Collection(folder):
        for context in shard.contexts:
            texts = dict.fromkeys(s.text for s in shard.segments if s.context_id == context.context_id)
            read = {
                text: meaning for text in texts if (meaning := read_step(text)) and "</think>" not in text
            }
            for first, second in itertools.combinations(read, 2):
                same = same_meaning(read[first], read[second])
                question = Question(shard.prompt, context.text, first, second)
                found.append(KnownPair(question, same, "same" if same else "different"))
    if len(found) < count:
        raise ConfigError(f"{folder} has {len(found)} pairs of readable segments; expected at least {count}")
    return random.Random(f"judge quality {seed}").sample(found, count)


class LabelledPair(BaseModel):
    """A line of a file of sentence pairs; other fields are ignored.

    Attributes:
        label: "entailment" counts as the same, any other label as different.
        same: the right answer, instead of a label.
        score: relatedness of the sentences (SICK: 1 to 5).
    """

    a: str
    b: str
    label: str = ""
    same: bool | None = None
    score: float | None = None

    @model_validator(mode="after")
    def _has_an_answer(self) -> LabelledPair:
        if self.same is None and not self.label:
            raise ValueError("expected `label` or `same`")
        return self

    def known_pair(self) -> KnownPair:
        """Returns the pair with its right answer."""
        same = self.label == "entailment" if self.same is None else self.same
        kind = self.label or ("same" if same else "different")
        return KnownPair(Question("", "", self.a, self.b), same, kind)


def read_pairs(path: Path, count: int, seed: int = 0, least_score: float = 0.0) -> list[KnownPair]:
    """Samples labelled sentence pairs from a JSONL file, half of them the same.

    SICK labels a pair `entailment` if a entails b, even if b does not entail a ("is playing an electric guitar"
    entails "is playing guitar"). Such pairs are neither surely the same nor surely different, so those with a score
    below `least_score` are left out.

    Raises:
        ConfigError: the file cannot be read, a line is not a labelled pair, or there are too few pairs.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise ConfigError(f"cannot read pairs from {path}: {error.strerror}") from error
    found: dict[bool, list[KnownPair]] = {True: [], False: []}
    for number, line in enumerate(lines, start=1):
        labelled = parse_json(LabelledPair, line, f"{path}, line {number}")
        pair = labelled.known_pair()
        if not pair.same or labelled.score is None or labelled.score >= least_score:
            found[pair.same].append(pair)
    half = count // 2
    if half < 1 or min(map(len, found.values())) < half:
        raise ConfigError(
            f"{path} has {len(found[True])} pairs that are the same and {len(found[False])} that are not; "
            f"{count} pairs need {max(half, 1)} of each"
        )
    rng = random.Random(f"judge quality {seed}")
    return [pair for same in (True, False) for pair in rng.sample(found[same], half)]
