"""Decides whether an output answers its problem: by math-verify, or by the demo's own grammar.

math-verify runs in a process of its own. An expression can keep its parser busy for ever or take all memory, and
a signal does not reach a computation inside C code; a process can be ended.
"""

from __future__ import annotations

import multiprocessing
from importlib.util import find_spec
from typing import Protocol

from semanticspec.benchmark.grading_worker import Grade, GradedBy, serve
from semanticspec.errors import ConfigError

TIMEOUT_S = 60.0
_START_TIMEOUT_S = 300.0


class Grader(Protocol):
    """Grades outputs one by one. Close it when done."""

    def grade(self, text: str, gold: str, *, truncated: bool) -> Grade:
        """Whether an output's answer is the gold answer.

        Args:
            text: the whole output. What follows `</think>` counts; without the tag, all of it.
            truncated: the output was cut off; then only a boxed answer, or a letter in JSON, counts.
        """
        ...

    def close(self) -> None: ...


def make_grader(graded_by: GradedBy) -> Grader:
    """The grader of a task.

    Raises:
        ConfigError: math-verify is missing.
    """
    if graded_by == "demo":
        return DemoGrader()
    check_grading(graded_by)
    return VerifyGrader(graded_by)


def check_grading(graded_by: GradedBy) -> None:
    """Raises ConfigError if the library that grades is missing, before anything is loaded."""
    if graded_by != "demo" and find_spec("math_verify") is None:
        raise ConfigError("grading needs math-verify: pip install 'semanticspec[bench]'")


class DemoGrader:
    """Reads the number in the last box, as the demo's grammar writes it."""

    def grade(self, text: str, gold: str, *, truncated: bool) -> Grade:  # noqa: ARG002
        """See `Grader.grade`."""
        from semanticspec.demo.grammar import answer_of

        answer = answer_of(text)
        return Grade("" if answer is None else str(answer), answer == int(gold))

    def close(self) -> None: ...


class VerifyGrader:
    """math-verify in a process of its own, ended and started anew when it hangs or breaks."""

    def __init__(self, graded_by: GradedBy, timeout_s: float = TIMEOUT_S) -> None:
        self._graded_by = graded_by
        self._timeout_s = timeout_s
        self._start()

    def grade(self, text: str, gold: str, *, truncated: bool) -> Grade:
        """See `Grader.grade`. An answer that cannot be graded in time is wrong, and its note says so."""
        try:
            self._connection.send((self._graded_by, text, gold, truncated))
            if self._connection.poll(self._timeout_s):
                grade: Grade = self._connection.recv()
                return grade
            note = f"grading took more than {self._timeout_s:.0f} s"
        except (OSError, EOFError):
            note = "the grader broke down on this answer"
        self.close()
        self._start()
        return Grade("", False, note)

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.join()
        self._connection.close()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs,), daemon=True, name="semanticspec-grader")
        self._process.start()
        theirs.close()
        try:
            ready = self._connection.poll(_START_TIMEOUT_S) and self._connection.recv()
        except (OSError, EOFError):
            ready = False
        if not ready:
            raise ConfigError("the grader's process does not start; try `python -c 'import math_verify'`")
