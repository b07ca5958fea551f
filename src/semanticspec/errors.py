"""Errors raised on purpose. Every message says what was wrong, what was expected and how to fix it."""

from __future__ import annotations

import errno


class SemanticSpecError(Exception):
    """Base class of all expected errors. The command line prints its message and exits with code 2."""


class ConfigError(SemanticSpecError, ValueError):
    """A setting is unknown, out of range, or incompatible with another one."""


class ModelError(SemanticSpecError):
    """A model or tokenizer cannot be found, read or used."""


class ProbeError(SemanticSpecError):
    """A probe is missing, broken, or was made for another model."""


class PromptError(SemanticSpecError, ValueError):
    """A prompt is empty or too long for the model's context."""


class EngineError(SemanticSpecError):
    """An engine failed, or lacks a capability that a rule or a tokenizer needs."""


class BenchmarkError(SemanticSpecError):
    """A benchmark folder is broken, has another configuration, or is in use by another process."""


def os_error_line(error: OSError) -> str:
    """Returns one line about a file that cannot be read or written: which one, and why."""
    reason = error.strerror or type(error).__name__
    if error.filename is None:
        return (
            f"cannot write to the output: {reason}"
            if error.errno == errno.ENOSPC
            else f"input or output: {reason}"
        )
    return f"{error.filename}: {reason}; check the path, its permissions and the free space"


def shortened(text: str, num_characters: int = 60) -> str:
    """Returns a text for an error message, truncated to `num_characters`."""
    return text if len(text) <= num_characters else f"{text[: num_characters - 3]}..."


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, or its type if the message is empty."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
