"""The prompt of `semanticspec generate`: an argument, standard input, or a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from semanticspec.errors import PromptError

STANDARD_INPUT = "-"


class PromptCommand(TyperCommand):
    """A command whose prompt may begin with a dash, as in `generate "- two\n- lists"`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses arguments. A dash before a digit, or with a space before any `=`, does not begin an option."""
        prompts = [place for place in range(len(args)) if self._is_prompt(args, place)]
        if prompts and "--" not in args:
            others = [argument for place, argument in enumerate(args) if place not in prompts]
            args = [*others, "--", *(args[place] for place in prompts)]
        return super().parse_args(ctx, args)

    def _is_prompt(self, args: list[str], place: int) -> bool:
        argument = args[place]
        if not argument.startswith("-") or not (argument[1:2].isdigit() or " " in argument.partition("=")[0]):
            return False
        before = args[place - 1] if place else ""
        return not any(before in self._names_with_value(parameter) for parameter in self.params)

    @staticmethod
    def _names_with_value(parameter: Any) -> list[str]:
        return [] if getattr(parameter, "is_flag", True) else list(parameter.opts)


def read_prompt(prompt: str | None, file: Path | None) -> str:
    """Returns the prompt from exactly one of its sources.

    Args:
        prompt: the argument; `-` reads standard input.
        file: of `--file`, UTF-8 text.

    Raises:
        PromptError: none or both are given, or the text is empty, not readable or not UTF-8.
    """
    if (prompt is None) == (file is None):
        got = "no prompt" if prompt is None else "a prompt and --file"
        raise PromptError(f"got {got}; expected a prompt, - for standard input, or --file FILE")
    if file is not None:
        text = _decoded(_bytes_of(file), str(file))
    elif prompt == STANDARD_INPUT:
        text = _decoded(sys.stdin.buffer.read(), "standard input")
    else:
        assert prompt is not None
        text = _decoded(prompt.encode(errors="surrogateescape"), "the prompt")
    if not text.strip():
        raise PromptError("the prompt is empty; expected some text to answer")
    return text


def _bytes_of(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise PromptError(f"--file {file} cannot be read: {error.strerror}; expected a text file") from None


def _decoded(content: bytes, origin: str) -> str:
    """Decodes UTF-8, without a byte order mark."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PromptError(
            f"{origin} is not UTF-8: byte {content[error.start]:#04x} at position {error.start}; convert it, for "
            "example with `iconv -f latin1 -t utf-8`"
        ) from None
