"""Checks prompts before anything is decoded, and tells a list of prompts from a conversation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from typing_extensions import TypeIs

from semanticspec.errors import PromptError, shortened
from semanticspec.text.chat import PlainText, Prompt

ROLES = ("system", "user", "assistant", "tool")
Prompts = list[str] | list[PlainText] | list[list[Mapping[str, str]]] | list[list[dict[str, str]]]
"""Several prompts, each answered by itself."""

_EXPECTED = "a string, or messages such as [{'role': 'user', 'content': 'Hello'}]"


def is_list_of_prompts(prompt: Prompt | Prompts) -> TypeIs[Prompts]:
    """Whether this is a list of prompts; a list of messages is one prompt."""
    return isinstance(prompt, list) and any(not isinstance(item, Mapping) for item in prompt)


def check_prompt(prompt: Prompt) -> None:
    """Checks types, roles and characters of a prompt.

    Raises:
        PromptError: the prompt is neither text nor messages, or its text is not valid Unicode.
    """
    if isinstance(prompt, str | PlainText):
        _check_text(prompt if isinstance(prompt, str) else prompt.text, "the prompt")
        return
    if not isinstance(prompt, Sequence) or isinstance(prompt, bytes):
        raise PromptError(f"the prompt is {_short(prompt)}; expected {_EXPECTED}")
    if not prompt:
        raise PromptError(f"the prompt has no messages; expected {_EXPECTED}")
    for number, message in enumerate(prompt):
        _check_message(message, f"messages[{number}]")


def _check_message(message: Any, place: str) -> None:
    if not isinstance(message, Mapping):
        raise PromptError(
            f"{place} is {_short(message)}; expected a dict with role and content (for several prompts, put each of "
            "them into the list as a string or as a list of messages)"
        )
    if "role" not in message or "content" not in message:
        missing = "role" if "role" not in message else "content"
        raise PromptError(f"{place} has no {missing}; expected a dict with role and content")
    if message["role"] not in ROLES:
        fix = "; use 'system'" if message["role"] == "developer" else ""
        raise PromptError(
            f"{place} has the role {_short(message['role'])}; expected one of {', '.join(ROLES)}{fix}"
        )
    content = message["content"]
    if isinstance(content, Sequence) and not isinstance(content, str):
        raise PromptError(
            f"the content of {place} is a list of parts; expected a string: join the text of the parts (other parts, "
            "such as images, are not supported)"
        )
    _check_text(content, f"the content of {place}")


def _check_text(text: Any, what: str) -> None:
    if not isinstance(text, str):
        raise PromptError(f"{what} is {_short(text)}; expected a string")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PromptError(
            f"{what} is not valid Unicode: {text[error.start]!r} at position {error.start} is half a character; it "
            "was probably decoded from bytes that are not UTF-8"
        ) from None


def _short(value: object) -> str:
    return shortened(repr(value))
