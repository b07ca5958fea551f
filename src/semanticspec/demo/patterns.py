"""Turns wordings into exact patterns, so that what is written by a template can be read by it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from semanticspec.demo.wordings import GAIN_VERBS, ITEMS, LOSE_VERBS, NAMES, UNITS

_NUMBER = r"0|[1-9]\d{0,2}"
_SLOT = re.compile(r"\{(\w+)\}")


def _any_of(words: tuple[str, ...]) -> str:
    return "|".join(re.escape(word) for word in words)


SLOT_PATTERNS: Mapping[str, str] = {
    "who": _any_of(NAMES),
    "other": _any_of(NAMES),
    "items": _any_of(ITEMS),
    "a": _NUMBER,
    "b": _NUMBER,
    "k": _NUMBER,
    "r": _NUMBER,
    "unit": _any_of(UNITS),
}
VERBS: Mapping[str, Mapping[str, str]] = {"gain": GAIN_VERBS, "lose": LOSE_VERBS}


def compile_wording(wording: str, kind: str) -> re.Pattern[str]:
    """Compiles a wording to a pattern with one named group per slot; a repeated slot must repeat its text."""
    slots = dict(SLOT_PATTERNS)
    if kind in VERBS:
        slots["verb"] = _any_of(tuple(VERBS[kind]))
        slots["verbing"] = _any_of(tuple(VERBS[kind].values()))
    seen: set[str] = set()

    def group(match: re.Match[str]) -> str:
        name = match.group(1)
        if name in seen:
            return f"(?P={name})"
        seen.add(name)
        return f"(?P<{name}>{slots[name]})"

    parts: list[str] = []
    end = 0
    for match in _SLOT.finditer(wording):
        parts += [re.escape(wording[end : match.start()]), group(match)]
        end = match.end()
    return re.compile("".join(parts) + re.escape(wording[end:]))
