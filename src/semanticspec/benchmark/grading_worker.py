"""What the grading process does: reads answers with math-verify and compares them. Loads no torch."""

from __future__ import annotations

import contextlib
import re
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal

from semanticspec.errors import first_line

GradedBy = Literal["demo", "math", "letter"]
LETTERS = ("A", "B", "C", "D")
_PARSE_TIMEOUT_S = 15
"""math-verify's own limit for one expression: a tidy "no answer" before the process is ended."""

_MEMORY_BYTES = 4 * 2**30
_LONGEST_ANSWER = 1000  # characters in a box
_LAST_CHARACTERS = 2000  # where an answer without a box is looked for
_THINK_END = "</think>"
_JSON_CHOICE = re.compile(r'"answer"\s*:\s*"\s*\(?([A-Z])\b')
_TRAILING_SPACE = re.compile(r"(?:\\[,;:! ]|\s)+$")  # math-verify gives up on a thin space at the end
_WARM_UPS = (
    "\\left(3,\\frac{\\pi}{2}\\right]",
    "x\\in[-2,7]",
    "x=\\frac{1}{2}",
    "\\sqrt{2}x+1",
    "\\text{east}",
)
_SENTENCE_END = re.compile(r"[.!?]\s+(?=[A-Z])|\n\s*\n")


@dataclass(frozen=True, slots=True)
class Grade:
    """What the grader read and decided. `note` says why there is no decision."""

    answer: str
    right: bool
    note: str = ""


def serve(connection: Connection) -> None:
    """The process: grades what comes until the other end closes. Ctrl-C is for the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    import logging

    logging.disable(logging.CRITICAL)
    for example in _WARM_UPS:  # sympy loads parts of itself when they are first used, which can take seconds
        _graded("math", f"\\boxed{{{example}}}", example, truncated=False)
    connection.send(True)
    while True:
        try:
            graded_by, text, gold, truncated = connection.recv()
        except (EOFError, OSError):
            return
        try:
            grade = _graded(graded_by, text, gold, truncated)
        except Exception as error:
            grade = Grade("", False, f"cannot be graded: {type(error).__name__}: {first_line(error)}")
        connection.send(grade)


def _graded(graded_by: GradedBy, text: str, gold: str, truncated: bool) -> Grade:
    from math_verify import verify

    answer = text.rpartition(_THINK_END)[2]
    read, shown = (_letter if graded_by == "letter" else _expression)(answer, truncated)
    right = bool(read) and bool(verify(_gold(graded_by, gold), read, timeout_seconds=_PARSE_TIMEOUT_S))
    return Grade(shown, right)


def _gold(graded_by: GradedBy, gold: str) -> list[Any]:
    from math_verify import parse

    if graded_by == "letter":
        return _parsed_letter(gold)
    return list(parse(f"${gold}$", parsing_timeout=_PARSE_TIMEOUT_S))


def _expression(answer: str, truncated: bool) -> tuple[list[Any], str]:
    """The last boxed expression, else what math-verify takes for the answer near the end."""
    from math_verify import parse

    boxed = _boxed(answer)
    if boxed is not None and len(boxed) > _LONGEST_ANSWER:
        return [], f"{boxed[:40]} ... ({len(boxed)} characters)"
    if boxed is not None:
        return list(parse(f"\\boxed{{{boxed}}}", parsing_timeout=_PARSE_TIMEOUT_S)), boxed
    if truncated:
        return [], ""
    read = list(parse(answer[-_LAST_CHARACTERS:], parsing_timeout=_PARSE_TIMEOUT_S))
    return read, str(read[-1]) if read else ""


def _letter(answer: str, truncated: bool) -> tuple[list[Any], str]:
    """The letter of the last `"answer": "C"`, else the boxed one, else what math-verify takes for the answer."""
    boxed = _boxed(answer)
    found = _JSON_CHOICE.findall(answer)
    if not found and boxed is not None:
        found = re.findall(r"\b([A-Z])\b", re.sub(r"\\[a-z]+", " ", boxed))
    if found:
        return _parsed_letter(found[-1]), found[-1]
    if truncated:
        return [], ""
    read = _parsed_letter(answer[-_LAST_CHARACTERS:], lead="")
    return read, str(read[0]).upper() if read else ""


def _parsed_letter(text: str, lead: str = "Answer: ") -> list[Any]:
    from math_verify import StringExtractionConfig, parse

    config = StringExtractionConfig(strings=LETTERS)
    return list(parse(f"{lead}{text}", [config], parsing_timeout=_PARSE_TIMEOUT_S))


def _boxed(text: str) -> str | None:
    """What is in the last box; boxes listed in one sentence are joined by commas. None if there is no box."""
    from latex2sympy2_extended.math_normalization import extract_boxed_content

    last = text.rfind("\\boxed")
    if last < 0:
        return None
    ends = [match.end() for match in _SENTENCE_END.finditer(text, 0, last)]
    boxed = str(extract_boxed_content(text[ends[-1] if ends else 0 :], mode="last"))
    return _TRAILING_SPACE.sub("", boxed)
