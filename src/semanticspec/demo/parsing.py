"""Reads text back: steps to meanings, problems to their solution, outputs to their answer. Exact, no guessing."""

from __future__ import annotations

import re
from typing import Literal, cast

from semanticspec.demo.meanings import Meaning, Operation, Problem
from semanticspec.demo.patterns import compile_wording
from semanticspec.demo.stories import Event, Story, solve
from semanticspec.demo.wordings import (
    COMPARISONS,
    CORRECTION_OPENINGS,
    EVENT_OPENINGS,
    EVENT_WORDINGS,
    INTROS,
    QUESTIONS,
    STEP_WORDINGS,
)

_STEP_PATTERNS: tuple[tuple[Operation, re.Pattern[str]], ...] = tuple(
    (operation, compile_wording(wording, operation))
    for operation, wordings in STEP_WORDINGS.items()
    for wording in wordings
)
_EVENT_PATTERNS = tuple(
    (kind, compile_wording(wording, kind))
    for kind, wordings in EVENT_WORDINGS.items()
    for wording in wordings
)
_INTRO_PATTERNS = tuple(compile_wording(wording, "intro") for wording in INTROS)
_COMPARISON_PATTERNS = tuple(
    (operation, compile_wording(wording, operation))
    for operation, wordings in COMPARISONS.items()
    for wording in wordings
)
_QUESTION_PATTERNS = tuple(
    (kind, compile_wording(wording, kind)) for kind, wordings in QUESTIONS.items() for wording in wordings
)
_BOXED = re.compile(r"\\boxed\{\s*(\d{1,9})\s*\}")
_THINK_TAGS = re.compile(r"</?think>")


def read_step(text: str) -> Meaning | None:
    """Reads the meaning of one reasoning step.

    Surrounding blank space and think tags do not matter. Numbers are returned as stated, right or wrong. A step
    that contradicts itself ("... buys 23 more ..., so ... 14 + 24 = 38") or is none of the grammar's is None.
    """
    step = _THINK_TAGS.sub("", text).strip()
    opening = next((opening for opening in CORRECTION_OPENINGS if step.startswith(opening + " ")), "")
    step = step[len(opening) :].strip()
    for operation, pattern in _STEP_PATTERNS:
        match = pattern.fullmatch(step)
        if match:
            return _meaning_of(operation, match.groupdict(), corrects=bool(opening))
    return None


def _meaning_of(operation: Operation, slots: dict[str, str], corrects: bool) -> Meaning:
    """Builds a meaning from what a pattern caught; wordings of doubling and halving may leave the 2 out."""
    operands: tuple[int, ...] = (int(slots["a"]),)
    if operation not in ("start", "final"):
        operands += (int(slots.get("b", "2")),)
    result = int(slots.get("r", slots["a"]))
    other, unit = slots.get("other", ""), slots.get("unit", "")
    return Meaning(operation, operands, result, slots["who"], slots["items"], other, unit, corrects)


def answer_of(text: str) -> int | None:
    r"""Returns the number in the last `\boxed{...}`, or None."""
    found = _BOXED.findall(text)
    return int(found[-1]) if found else None


def read_problem(text: str) -> Problem | None:
    """Reads a problem text and solves it; None if it is not in the grammar."""
    text = " ".join(text.split())
    sentences = re.split(r"(?<=[.?]) ", text)
    story = _read_story(sentences)
    solved = solve(story) if story is not None else None
    if solved is None:
        return None
    return Problem(text, solved.answer, solved.steps, solved.verbs)


def _read_story(sentences: list[str]) -> Story | None:
    question = _read_question(sentences[-1])
    first = _read_intro(sentences[0])
    if question is None or first is None:
        return None
    item, kind, asked, other = question
    people, starts = [first[0]], [first[1]]
    comparison: Operation = "start"
    events: list[Event] = []
    for sentence in sentences[1:-1]:
        event = _read_event(sentence, item, people[-1])
        start = _read_start(sentence, item, people[0]) if event is None else None
        if event is not None:
            events.append(event)
        elif start is not None and len(people) == 1:
            people.append(start[0])
            starts.append(start[1])
            comparison = start[2]
        else:
            return None
    fits = asked == people[-1] if kind == "final" else {asked, other} == set(people) and asked != other
    if first[2] != item or not fits or (kind == "total" and asked != people[0]):
        return None
    return Story(item, tuple(people), tuple(starts), comparison, tuple(events), kind, asked)


def _read_intro(sentence: str) -> tuple[str, int, str] | None:
    """Reads who has how many of what."""
    for pattern in _INTRO_PATTERNS:
        match = pattern.fullmatch(sentence)
        if match:
            return match["who"], int(match["a"]), match["items"]
    return None


def _read_start(sentence: str, item: str, first: str) -> tuple[str, int, Operation] | None:
    """Reads how the second person is brought in: name, number and kind of comparison."""
    intro = _read_intro(sentence)
    if intro is not None:
        return (intro[0], intro[1], "start") if intro[2] == item and intro[0] != first else None
    for operation, pattern in _COMPARISON_PATTERNS:
        match = pattern.fullmatch(sentence)
        if match and match["who"] == first and match["other"] != first and match["items"] == item:
            return match["other"], int(match.groupdict().get("b", "2")), operation
    return None


def _read_event(sentence: str, item: str, who: str) -> Event | None:
    """Reads what happens to `who`; None for anything else."""
    opening = next((opening for opening in EVENT_OPENINGS if opening and sentence.startswith(opening)), "")
    for kind, pattern in _EVENT_PATTERNS:
        match = pattern.fullmatch(sentence[len(opening) :])
        if match is None:
            continue
        slots = match.groupdict()
        if slots["who"] != who or slots.get("items", item) != item:
            return None
        fixed = {"gift": "gets", "give": "gives away", "share": "friends"}.get(kind, "")
        verb = slots.get("verb") or slots.get("unit") or fixed
        return Event(kind, who, int(slots.get("b", "0")), int(slots.get("k", "0")), verb)
    return None


def _read_question(sentence: str) -> tuple[str, Literal["final", "total", "difference"], str, str] | None:
    for kind, pattern in _QUESTION_PATTERNS:
        match = pattern.fullmatch(sentence)
        if match:
            slots = match.groupdict()
            name = cast(Literal["final", "total", "difference"], kind)
            return slots["items"], name, slots["who"], slots.get("other", "")
    return None
