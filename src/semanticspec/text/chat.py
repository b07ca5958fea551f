"""Chat templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from semanticspec.errors import PromptError, first_line

THINK_START = "<think>"
THINK_END = "</think>"


@dataclass(frozen=True, slots=True)
class PlainText:
    """A text to continue as it is, without a chat template."""

    text: str


Prompt = str | PlainText | Sequence[Mapping[str, str]]
"""One user message, a plain text, or chat messages with `role` and `content`."""


def prompt_text(prompt: Prompt) -> str:
    """Returns the text of a prompt without a chat template: its messages' contents, joined by blank lines."""
    return "\n\n".join(message.get("content", "") for message in _messages(prompt))


def _messages(prompt: Prompt) -> list[dict[str, str]]:
    if isinstance(prompt, PlainText):
        return [{"role": "", "content": prompt.text}]
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    return [dict(message) for message in prompt]


def render_prompt(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Applies the model's chat template, including its generation prompt.

    Without a chat template, the messages' contents are joined by blank lines.

    Args:
        tokenizer: a transformers tokenizer.

    Returns:
        Token ids.

    Raises:
        PromptError: The prompt is empty, or the chat template refuses the messages.
    """
    messages = _messages(prompt)
    if not any(message.get("content", "").strip() for message in messages):
        raise PromptError("the prompt is empty; expected some text")
    has_template = bool(getattr(tokenizer, "chat_template", None)) and not isinstance(prompt, PlainText)
    if has_template:
        text = _apply_template(tokenizer, messages)
    else:
        text = "\n\n".join(message["content"] for message in messages)
    # A template writes the begin-of-text token itself.
    ids: list[int] = tokenizer.encode(text, add_special_tokens=not has_template, verbose=False)
    return ids


def _apply_template(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    from jinja2 import TemplateError

    try:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except TemplateError as error:
        raise PromptError(f"the model's chat template refuses these messages: {first_line(error)}") from error
    return text
