"""Docs, docstrings, comments and messages keep to the terms of the field."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = [
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("experiments/**/*.md"),
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
]
SOURCES = [*ROOT.glob("src/**/*.py"), *ROOT.glob("experiments/**/*.py"), ROOT / "Makefile"]
BANNED = {
    r"\bforeign methods?\b": "baselines",
    r"(?<!joined )(?<!separated )\bby commas\b": "comma-separated",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\b(forget|forgotten)\b": "reset_cache, evict, drop",
    r"\bgo(es)? on\b": "continue, resume",
    r"\bcounts? for nobody\b": "untimed warm-up",
    r"\bif need be\b": "if necessary",
    r"\bparted (into|from)\b": "split",
    r"\bread plainly\b": "(say it)",
    r"\bat work\b": "running",
    r"\banew\b": "again",
}
BANNED_IN_DOCS = {
    r"\blevers?\b": "optimizations",
}


@pytest.mark.parametrize("pattern", BANNED)
def test_no_banned_words(pattern: str) -> None:
    assert not found(pattern, [*DOCS, *SOURCES]), f"write {BANNED[pattern]} instead"


@pytest.mark.parametrize("pattern", BANNED_IN_DOCS)
def test_no_banned_words_in_docs(pattern: str) -> None:
    assert not found(pattern, DOCS), f"write {BANNED_IN_DOCS[pattern]} instead"


def found(pattern: str, pages: list[Path]) -> list[str]:
    return [
        f"{page.relative_to(ROOT)}:{number}"
        for page in pages
        for number, line in enumerate(page.read_text().splitlines(), start=1)
        if re.search(pattern, line, re.IGNORECASE)
    ]
