"""What can go wrong, by boundary. Every message says what was wrong, what was expected and how to mend it."""

from __future__ import annotations


class SemanticSpecError(Exception):
    """Base of all errors this package raises on purpose. The command line shows its text and exits with 2."""


class ConfigError(SemanticSpecError, ValueError):
    """A setting that cannot work: out of range, unknown, or impossible together with another one."""


class ModelError(SemanticSpecError):
    """A model or tokenizer that cannot be found, read or used."""


class ProbeError(SemanticSpecError):
    """A probe that is missing, broken, or was made for another model than the one it is given."""


class PromptError(SemanticSpecError, ValueError):
    """A prompt that cannot be answered: empty, or too long for the model's context."""


class EngineError(SemanticSpecError):
    """An engine failed while it worked, or lacks what a rule or a tokenizer needs."""


class BenchmarkError(SemanticSpecError):
    """A benchmark's folder that cannot be used: broken, of another configuration, or in use by another process."""


def first_line(error: BaseException) -> str:
    """The first line of what an error says; its type where it says nothing."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
