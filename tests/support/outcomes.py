"""A grader and a target for tests of outcome labels."""

from __future__ import annotations

from collections.abc import Sequence

from semanticspec.benchmark.grading_worker import Grade


class LetterGrader:
    """The answer is the last letter of an output."""

    def grade(self, text: str, gold: str, *, truncated: bool) -> Grade:  # noqa: ARG002
        letters = text.replace("</think>", "").split()
        return Grade(letters[-1] if letters else "", bool(letters) and letters[-1] == gold)

    def close(self) -> None: ...


def repeats_the_last_letter(ids: Sequence[int]) -> list[float]:
    """A target that ends at once, so that the last letter of what it is given is its answer; "b" from nothing."""
    if 2 in ids or ids[-1] == 1:
        return [0, 0, 0, 0, 1, 0]
    return [0, 1, 0, 0, 0, 0]
