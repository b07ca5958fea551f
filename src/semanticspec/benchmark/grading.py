"""Decides whether an output answers its problem. Built in: math-verify, for expressions and multiple choice.

math-verify runs in a process of its own, since parsing an expression can hang or exhaust the memory inside C code,
where a signal handler does not run.
"""

from __future__ import annotations

import multiprocessing
from importlib.util import find_spec
from typing import Protocol

from semanticspec.benchmark.grading_worker import AnswerKind, Grade, serve
from semanticspec.errors import ConfigError
from semanticspec.install_hints import install_hint

TIMEOUT_S = 60.0
_START_TIMEOUT_S = 300.0


class Grader(Protocol):
    """Grades outputs one at a time. Close it when done."""

    def grade(self, text: str, gold: str, *, truncated: bool) -> Grade:
        """Extracts the answer of an output and compares it with the gold answer.

        Args:
            text: the whole output. Only what follows `</think>` counts; without the tag, all of it.
            truncated: the output was cut off; then only a boxed answer, or a letter in JSON, counts.
        """
        ...

    def close(self) -> None: ...


def check_math_verify() -> None:
    """Raises ConfigError if math-verify is not installed."""
    if find_spec("math_verify") is None:
        raise ConfigError(f"grading needs math-verify: {install_hint('bench')}")


class MathVerifyGrader:
    """Runs math-verify in a process, which is restarted when it hangs or dies."""

    def __init__(self, kind: AnswerKind, timeout_s: float = TIMEOUT_S) -> None:
        """Starts the process.

        Raises:
            ConfigError: math-verify is missing, or the process does not start.
        """
        check_math_verify()
        self._kind: AnswerKind = kind
        self._timeout_s = timeout_s
        self._start()

    def grade(self, text: str, gold: str, *, truncated: bool) -> Grade:
        """See `Grader.grade`. An answer that cannot be graded in time is wrong; its note says so."""
        try:
            self._connection.send((self._kind, text, gold, truncated))
            if self._connection.poll(self._timeout_s):
                grade: Grade = self._connection.recv()
                return grade
            note = f"grading took more than {self._timeout_s:.0f} s"
        except (OSError, EOFError):
            note = "the grading process died on this answer"
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
            raise ConfigError("the grading process does not start; try `python -c 'import math_verify'`")
