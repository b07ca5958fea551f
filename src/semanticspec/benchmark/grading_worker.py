"""The grading process: extracts answers and compares them with math-verify. Does not load torch."""

from __future__ import annotations

import contextlib
import re
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal

from semanticspec.errors import first_line

AnswerKind = Literal["math", "letter"]
LETTERS = ("A", "B", "C", "D")
_PARSE_TIMEOUT_S = 15  # math-verify's own limit per expression; reached before the process is killed
_MEMORY_BYTES = 4 * 2**30
_MAX_BOX_CHARACTERS = 1000
_TAIL_CHARACTERS = 2000  # where an answer without a box is searched
_THINK_END = "</think>"
_JSON_CHOICE = re.compile(r'"answer"\s*:\s*"\s*\(?([A-Z])\b')
_TRAILING_SPACE = re.compile(r"(?:\\[,;:! ]|\s)+$")  # math-verify fails on a thin space at the end
_SENTENCE_END = re.compile(r"[.!?]\s+(?=[A-Z])|\n\s*\n")
_WARM_UP_ANSWERS = (
    "\\left(3,\\frac{\\pi}{2}\\right]",
    "x\\in[-2,7]",
    "x=\\frac{1}{2}",
    "\\sqrt{2}x+1",
    "\\text{east}",
)


@dataclass(frozen=True, slots=True)
class Grade:
    """The extracted answer and whether it is right. `note` says why an answer could not be graded."""

    answer: str
    right: bool
    note: str = ""


def serve(connection: Connection) -> None:
    """Grades requests until the connection closes. Ignores Ctrl-C, which the parent handles."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    import logging

    logging.disable(logging.CRITICAL)
    for answer in _WARM_UP_ANSWERS:  # sympy imports parts of itself on first use, which can take seconds
        _grade("math", f"\\boxed{{{answer}}}", answer, truncated=False)
    connection.send(True)
    while True:
        try:
            kind, text, gold, truncated = connection.recv()
        except (EOFError, OSError):
            return
        try:
            grade = _grade(kind, text, gold, truncated)
        except Exception as error:
            grade = Grade("", False, f"cannot be graded: {type(error).__name__}: {first_line(error)}")
        connection.send(grade)


def _grade(kind: AnswerKind, text: str, gold: str, truncated: bool) -> Grade:
    from math_verify import verify

    extract, parse_gold = (_letter, _parse_letter) if kind == "letter" else (_expression, _parse_gold)
    parsed, shown = extract(text.rpartition(_THINK_END)[2], truncated)
    right = bool(parsed) and bool(verify(parse_gold(gold), parsed, timeout_seconds=_PARSE_TIMEOUT_S))
    return Grade(shown, right)


def _parse_gold(gold: str) -> list[Any]:
    from math_verify import parse

    return list(parse(f"${gold}$", parsing_timeout=_PARSE_TIMEOUT_S))


def _expression(answer: str, truncated: bool) -> tuple[list[Any], str]:
    """Returns the last boxed expression, or else what math-verify finds near the end; parsed and as text."""
    from math_verify import parse

    boxed = _boxed(answer)
    if boxed is not None and len(boxed) > _MAX_BOX_CHARACTERS:
        return [], f"{boxed[:40]} ... ({len(boxed)} characters)"
    if boxed is not None:
        return list(parse(f"\\boxed{{{boxed}}}", parsing_timeout=_PARSE_TIMEOUT_S)), boxed
    if truncated:
        return [], ""
    parsed = list(parse(answer[-_TAIL_CHARACTERS:], parsing_timeout=_PARSE_TIMEOUT_S))
    return parsed, str(parsed[-1]) if parsed else ""


def _letter(answer: str, truncated: bool) -> tuple[list[Any], str]:
    """Returns the letter of the last `"answer": "C"`, or else of the box, or else what math-verify finds."""
    boxed = _boxed(answer)
    found = _JSON_CHOICE.findall(answer)
    if not found and boxed is not None:
        found = re.findall(r"\b([A-Z])\b", re.sub(r"\\[a-z]+", " ", boxed))
    if found:
        return _parse_letter(found[-1]), found[-1]
    if truncated:
        return [], ""
    parsed = _parse_letter(answer[-_TAIL_CHARACTERS:], lead="")
    return parsed, str(parsed[0]).upper() if parsed else ""


def _parse_letter(text: str, lead: str = "Answer: ") -> list[Any]:
    from math_verify import StringExtractionConfig, parse

    config = StringExtractionConfig(strings=LETTERS)
    return list(parse(f"{lead}{text}", [config], parsing_timeout=_PARSE_TIMEOUT_S))


def _boxed(text: str) -> str | None:
    """Returns the content of the last box; boxes listed in one sentence are joined by commas. None without a box."""
    from latex2sympy2_extended.math_normalization import extract_boxed_content

    last = text.rfind("\\boxed")
    if last < 0:
        return None
    ends = [match.end() for match in _SENTENCE_END.finditer(text, 0, last)]
    boxed = str(extract_boxed_content(text[ends[-1] if ends else 0 :], mode="last"))
    return _TRAILING_SPACE.sub("", boxed)
