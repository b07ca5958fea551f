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
    PAIR_INTROS,
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
_PAIR_PATTERNS = tuple(compile_wording(wording, "intro") for wording in PAIR_INTROS)
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
    return Meaning(
        operation, operands, result, slots["who"], slots["items"], slots.get("other", ""), corrects
    )


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
    starts = _read_starts(sentences)
    question = _read_question(sentences[-1])
    if starts is None or question is None:
        return None
    item, people, values, comparison, used = starts
    events = [_read_event(sentence, item, people) for sentence in sentences[used:-1]]
    asked_item, kind, asked, other = question
    known = tuple(event for event in events if event is not None)
    if len(known) < len(events) or asked_item != item or asked not in people:
        return None
    if (other and (other not in people or other == asked)) or (kind != "final" and not other):
        return None
    return Story(item, people, values, comparison, known, kind, asked)


_Starts = tuple[str, tuple[str, ...], tuple[int, ...], Operation, int]


def _read_starts(sentences: list[str]) -> _Starts | None:
    """Reads the people and their first counts; the last value is the number of sentences this took."""
    for pattern in _PAIR_PATTERNS:
        pair = pattern.fullmatch(sentences[0])
        if pair and pair["who"] != pair["other"]:
            values = (int(pair["a"]), int(pair["b"]))
            return pair["items"], (pair["who"], pair["other"]), values, "start", 1
    intro = next((match for pattern in _INTRO_PATTERNS if (match := pattern.fullmatch(sentences[0]))), None)
    if intro is None:
        return None
    item, who, count = intro["items"], intro["who"], int(intro["a"])
    for operation, pattern in _COMPARISON_PATTERNS:
        match = pattern.fullmatch(sentences[1]) if len(sentences) > 1 else None
        if match and match["who"] == who and match["other"] != who and match["items"] == item:
            value = int(match.groupdict().get("b", "2"))
            return item, (who, match["other"]), (count, value), operation, 2
    return item, (who,), (count,), "start", 1


def _read_event(sentence: str, item: str, people: tuple[str, ...]) -> Event | None:
    opening = next((opening for opening in EVENT_OPENINGS if opening and sentence.startswith(opening)), "")
    for kind, pattern in _EVENT_PATTERNS:
        match = pattern.fullmatch(sentence[len(opening) :])
        if match is None:
            continue
        slots = match.groupdict()
        who, other = slots["who"], slots.get("other", "")
        strangers = who not in people or (kind == "transfer" and (other not in people or other == who))
        if strangers or slots.get("items", item) != item:
            return None
        fixed = {"gift": "gets", "transfer": "gives away", "share": "friends"}.get(kind, "")
        verb = slots.get("verb") or slots.get("unit") or fixed
        return Event(kind, who, int(slots.get("b", "0")), int(slots.get("k", "0")), verb, other)
    return None


def _read_question(sentence: str) -> tuple[str, Literal["final", "total", "difference"], str, str] | None:
    for kind, pattern in _QUESTION_PATTERNS:
        match = pattern.fullmatch(sentence)
        if match:
            slots = match.groupdict()
            name = cast(Literal["final", "total", "difference"], kind)
            return slots["items"], name, slots["who"], slots.get("other", "")
    return None
