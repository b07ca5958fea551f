"""Writes solutions: a problem's steps in one style's wordings, some with a mistake that is then corrected."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate

from semanticspec.demo.meanings import LARGEST_NUMBER, Meaning, Problem, StyleName
from semanticspec.demo.patterns import VERBS
from semanticspec.demo.stories import closing_step
from semanticspec.demo.wordings import (
    ANSWER_WEIGHTS,
    ANSWER_WORDINGS,
    CLOSING_SHARE,
    CORRECTION_OPENINGS,
    STEP_WORDINGS,
    STYLE_WEIGHTS,
)

THINK_END = "</think>"
STEP_END = "\n\n"
# Share of solutions with a mistake; one in eight teaches both models what a mistake looks like.
SLIP_SHARE = 0.125


@dataclass(frozen=True, slots=True)
class Piece:
    """Part of a solution. `learn` is False for a mistake, which the training loss leaves out."""

    text: str
    learn: bool = True


@cache
def _cumulative(style: StyleName) -> tuple[int, ...]:
    return tuple(accumulate(STYLE_WEIGHTS[style]))


def write_step(meaning: Meaning, verb: str, wording: int) -> str:
    """Writes one step in the given wording, without the blank line after it."""
    values = (*meaning.operands, 0)
    return STEP_WORDINGS[meaning.operation][wording].format(
        who=meaning.who,
        other=meaning.other,
        items=meaning.item,
        a=values[0],
        b=values[1],
        r=meaning.result,
        unit=meaning.unit,
        verb=verb,
        verbing=VERBS.get(meaning.operation, {}).get(verb, ""),
    )


def pick_wording(style: StyleName, rng: random.Random) -> int:
    """Draws the number of a wording, as often as the style uses it."""
    weights = _cumulative(style)
    drawn = rng.random() * weights[-1]
    return next(index for index, bound in enumerate(weights) if drawn < bound)


def steps_to_tell(problem: Problem, rng: random.Random) -> list[tuple[Meaning, str]]:
    """Returns the problem's steps with their verbs; sometimes with an optional closing step."""
    steps = list(zip(problem.steps, problem.verbs, strict=True))
    last = problem.steps[-1]
    if last.operation not in ("total", "difference") and rng.random() < CLOSING_SHARE:
        steps.append((closing_step(last.who, last.item, last.result), ""))
    return steps


def write_trace(
    problem: Problem, style: StyleName, rng: random.Random, slip_share: float = SLIP_SHARE
) -> list[Piece]:
    """Writes a whole solution, from its first step to the boxed answer (without the end-of-turn token).

    Args:
        problem: What to solve.
        style: Whose words to use.
        rng: The generator of all random choices.
        slip_share: Share of solutions in which one step is first written wrong. The wrong text, from its first
            wrong character to the end of that step, is a piece with `learn=False`; a correction follows.

    Returns:
        Pieces; their texts joined are the solution.
    """
    steps = steps_to_tell(problem, rng)
    slip_at = rng.randrange(len(steps)) if rng.random() < slip_share else -1
    pieces: list[Piece] = []
    for position, (meaning, verb) in enumerate(steps):
        opening = ""
        if position == slip_at:
            pieces += _write_slip(problem, meaning, verb, rng)
            opening = rng.choice(CORRECTION_OPENINGS) + " "
        end = "\n" if position == len(steps) - 1 else STEP_END
        pieces.append(Piece(opening + write_step(meaning, verb, pick_wording(style, rng)) + end))
    answer = rng.choices(ANSWER_WORDINGS, ANSWER_WEIGHTS[style])[0].format(r=problem.answer)
    pieces.append(Piece(f"{THINK_END}{STEP_END}{answer}"))
    return pieces


def _write_slip(problem: Problem, meaning: Meaning, verb: str, rng: random.Random) -> list[Piece]:
    """Writes a step wrong, in either style; models learn only the text before the first wrong character."""
    wording = pick_wording(rng.choice(("target", "draft")), rng)
    right = write_step(meaning, verb, wording) + STEP_END
    wrong = right
    while wrong == right:
        wrong = write_step(_spoil(meaning, problem, rng), verb, wording) + STEP_END
    start = next(place for place, (one, two) in enumerate(zip(right, wrong, strict=False)) if one != two)
    return [Piece(wrong[:start]), Piece(wrong[start:], learn=False)]


def _spoil(meaning: Meaning, problem: Problem, rng: random.Random) -> Meaning:
    """Makes a plausible mistake: a wrong result, a number copied wrongly, or the wrong person."""
    people = sorted({step.who for step in problem.steps} - {meaning.who})
    drawn = rng.random()
    if people and drawn < 0.12:
        return replace(meaning, who=people[0], other=meaning.who if meaning.other else "")
    if drawn < 0.4 or meaning.operation in ("start", "final"):
        place = rng.randrange(len(meaning.operands))
        operands = list(meaning.operands)
        operands[place] = _near(operands[place], rng)
        copied = replace(meaning, operands=tuple(operands))
        return replace(copied, result=min(LARGEST_NUMBER, max(0, copied.expected_result())))
    return replace(meaning, result=_near(meaning.result, rng))


def _near(number: int, rng: random.Random) -> int:
    """Returns another number in 0..`LARGEST_NUMBER`: one or ten away, or with one digit changed."""
    drawn = rng.random()
    if drawn < 0.6:
        wrong = number + rng.choice((-10, -1, 1, 10))
    else:
        digits = list(str(number))
        digits[rng.randrange(len(digits))] = rng.choice("123456789")
        wrong = int("".join(digits))
    return wrong if 0 <= wrong <= LARGEST_NUMBER and wrong != number else number + 1
