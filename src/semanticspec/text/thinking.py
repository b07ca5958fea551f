"""Think tags: the texts between which a model reasons before it answers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from semanticspec.text.chat import THINK_END, THINK_START


@dataclass(frozen=True, slots=True)
class ThinkTags:
    """Where the reasoning of a model begins and ends.

    Attributes:
        start: text before the reasoning.
        end: text between reasoning and answer.
        before_end: markup that models write between the reasoning and `end`.
    """

    start: str = THINK_START
    end: str = THINK_END
    before_end: str = ""

    @property
    def whole_end(self) -> str:
        """What a model writes to end its reasoning."""
        return self.before_end + self.end

    def inside(self, text: str) -> bool:
        """Returns whether the last `start` of a text is still open."""
        _, tag, after = text.rpartition(self.start)
        return bool(tag) and self.end not in after

    def split(self, text: str, *, opened: bool) -> tuple[str, str]:
        """Splits an output into reasoning and answer, without the tags and the line breaks around them.

        Text without think tags is the answer.

        Args:
            opened: the prompt already ends inside the reasoning.
        """
        begin = text.lstrip()
        if not opened and begin.startswith((self.start, self.end)):
            text, opened = begin.removeprefix(self.start), True
        reasoning, end, answer = text.partition(self.end)
        if not (opened or end):
            return "", text
        if end:
            reasoning = reasoning.removesuffix(self.before_end)
        return reasoning.strip("\n"), answer.lstrip("\n")


CHANNELS = ThinkTags(
    "<|channel|>analysis<|message|>", "<|channel|>final<|message|>", before_end="<|end|><|start|>assistant"
)
"""gpt-oss reasons in one channel and answers in another. Source: the harmony response format."""

_TAGS = (
    ThinkTags(),
    ThinkTags("[THINK]", "[/THINK]"),  # Magistral
    ThinkTags("<seed:think>", "</seed:think>"),  # Seed-OSS
    ThinkTags("◁think▷", "◁/think▷"),  # Kimi
    ThinkTags("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A Reasoning
    ThinkTags("<|begin_of_thought|>", "<|end_of_thought|>"),  # OpenThinker
)


def find_think_tags(added_tokens: Collection[str], chat_template: str) -> ThinkTags:
    """Returns the think tags of a model: those that are added tokens, else those that its chat template mentions.

    Models that have neither may still be asked for `<think>` and `</think>`.
    """
    if {"<|channel|>", "<|message|>", "<|end|>"}.issubset(added_tokens):
        return CHANNELS
    for tags in _TAGS:
        if tags.start in added_tokens and tags.end in added_tokens:
            return tags
    return next((tags for tags in _TAGS if tags.end in chat_template), ThinkTags())
