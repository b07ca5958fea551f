"""How good a judge is: its word on pairs whose truth is known.

Sources of pairs: the demo's grammar, in which two steps mean the same or not beyond doubt; what models wrote about the
demo's problems; and any JSONL file of sentence pairs with labels. `semanticspec probe judge-quality` is the command.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from semanticspec.errors import ConfigError
from semanticspec.training.labels.judges.base import Clustering, Judge, Question

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class KnownPair:
    """A question with its answer. `kind` says how the pair was made."""

    question: Question
    same: bool
    kind: str


class Figure(NamedTuple):
    """A value with its 95 % bootstrap interval over pairs."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Quality:
    """Figures of a judge on pairs.

    Attributes:
        precision: share of what it calls the same that is the same; recall: share of the same that it finds; f1:
            their harmonic mean. accuracy: share of right answers.
        by_kind: share of right answers for each kind of pair, with the number of pairs.
    """

    num_pairs: int
    num_same: int
    precision: Figure
    recall: Figure
    f1: Figure
    accuracy: Figure
    by_kind: dict[str, tuple[float, int]]


def judge_pairs(judge: Judge, pairs: Sequence[KnownPair]) -> list[bool]:
    """Asks a judge about every pair on its own."""
    if isinstance(judge, Clustering):
        return judge.pairs.same([pair.question for pair in pairs])
    answers = []
    for pair in pairs:
        asked = pair.question
        first, second = judge.keys(asked.problem, asked.context, [asked.first, asked.second])
        answers.append(first == second)
    return answers


def measure(pairs: Sequence[KnownPair], answers: Sequence[bool], seed: int = 0) -> Quality:
    """Compares answers with the truth.

    Raises:
        ConfigError: the pairs are all the same or all different, so that nothing can be told.
    """
    import numpy as np

    truth = np.array([pair.same for pair in pairs], dtype=bool)
    said = np.array(answers, dtype=bool)
    if not truth.any() or truth.all():
        raise ConfigError("judge quality needs pairs that mean the same and pairs that do not")
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
    """Over the last axis of `[..., pairs]`; 0 where nothing is called the same."""
    import numpy as np

    hits, true, called = (truth & said).sum(-1), truth.sum(-1), said.sum(-1)
    return {
        "precision": hits / np.maximum(called, 1),
        "recall": hits / np.maximum(true, 1),
        "f1": 2 * hits / np.maximum(true + called, 1),
        "accuracy": (truth == said).mean(-1),
    }


def demo_pairs(count: int, seed: int = 0) -> list[KnownPair]:
    """Pairs of steps of demo problems (validation split), half of them with the same meaning.

    The first step is in the target's words. The second one is the same step in other words, in the draft's style;
    or, in equal parts, with a wrong number, a wrong operation (the result recomputed or kept), or a wrong
    person, or it is another step of the same problem. The truth is the grammar's reading of both texts, never how they
    were made.
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
    """One number of the step is off: its result, or an operand."""
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
    """A gain told as a loss and the like; empty where the step has no counterpart."""
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
    """Pairs of segments that models wrote in the same context, as often the same as it happens; texts differ.

    Args:
        folder: a collection of demo problems; the grammar's exact meanings are the truth. Pairs with a text that the
            grammar cannot read are left out.

    Raises:
        ProbeError: there is no collection.
        ConfigError: it has too few pairs whose meanings can be read.
    """
    from semanticspec.demo.grammar import read_step, same_meaning
    from semanticspec.training.data.storage import Collection

    collection = Collection(folder)
    _ = collection.manifest  # tells when there is no collection
    found: list[KnownPair] = []
    for shard in collection:
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
        raise ConfigError(f"{folder} has {len(found)} pairs of readable segments, fewer than {count}")
    return random.Random(f"judge quality {seed}").sample(found, count)


def read_pairs(path: Path, count: int, seed: int = 0, least_score: float = 0.0) -> list[KnownPair]:
    """A balanced sample of labelled pairs of sentences, half of them the same.

    A line is a JSON object with the texts `a` and `b` and either `same` (true or false) or `label`: `entailment`
    counts as the same, any other label as different.

    Beware of SICK: its label says that a entails b, not that b entails a as well ("is playing an electric
    guitar" entails "is playing guitar"). Pairs labelled entailment below `least_score` (field `score`, SICK's
    relatedness, 1 to 5) are therefore left out, being neither surely the same nor surely different.

    Raises:
        ConfigError: the file cannot be read, a line is no pair, or there are too few.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        raise ConfigError(f"no pairs can be read from {path}: {error.strerror}") from error
    found: dict[bool, list[KnownPair]] = {True: [], False: []}
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            label = entry.get("label", "")
            same = bool(entry["same"]) if "same" in entry else entry["label"] == "entailment"
            question = Question("", "", str(entry["a"]), str(entry["b"]))
            score = float(entry.get("score", least_score))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"{path}, line {number}: expected a JSON object with a, b and label or same"
            ) from error
        if not same or score >= least_score:
            found[same].append(KnownPair(question, same, label or ("same" if same else "different")))
    half = count // 2
    if half < 1 or min(map(len, found.values())) < half:
        raise ConfigError(
            f"{path} has {len(found[True])} pairs that are the same and {len(found[False])} that are not; "
            f"{count} pairs need {max(half, 1)} of each"
        )
    rng = random.Random(f"judge quality {seed}")
    return [pair for same in (True, False) for pair in rng.sample(found[same], half)]
