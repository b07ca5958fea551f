"""Features of a segment's text: how far the reasoning has come, and whether its numbers are new.

A wrong step often has a number that nothing before it explains, and a step that only repeats what is known has none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import lru_cache

from semanticspec.records import SegmentText

_NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?")
_STEP_END = re.compile(r"\n\s*\n")


def numbers_in(text: str) -> list[str]:
    """Returns the numbers of a text in a common form: `1,000` is `1000`, and `3.50` is `3.5`."""
    return [_plain(found.replace(",", "")) for found in _NUMBER.findall(text)]


def _plain(number: str) -> str:
    if "." in number:
        number = number.rstrip("0").rstrip(".")
    return number.lstrip("0") or "0"


@lru_cache(maxsize=256)
def _known_numbers(prompt: str, before: str) -> frozenset[str]:
    return frozenset(numbers_in(prompt)) | frozenset(numbers_in(before))


def _num_numbers(segment: SegmentText) -> float:
    return math.log1p(len(numbers_in(segment.text)))


def _new_numbers(segment: SegmentText) -> float:
    """Share of the segment's numbers that neither the prompt nor the output so far has; 0 if it has none."""
    numbers = numbers_in(segment.text)
    known = _known_numbers(segment.prompt, segment.before)
    return sum(number not in known for number in numbers) / max(1, len(numbers))


def _steps_before(segment: SegmentText) -> float:
    """Logarithm of 1 + the number of steps so far, which are separated by blank lines."""
    return math.log1p(sum(bool(step.strip()) for step in _STEP_END.split(segment.before)))


def _length_before(segment: SegmentText) -> float:
    """Logarithm of 1 + the characters of the output so far."""
    return math.log1p(len(segment.before))


TEXT_FEATURES: dict[str, Callable[[SegmentText], float]] = {
    "numbers": _num_numbers,
    "new_numbers": _new_numbers,
    "steps_before": _steps_before,
    "length_before": _length_before,
}
