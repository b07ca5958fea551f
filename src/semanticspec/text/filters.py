"""Filters for streamed text: stop strings, and the split into reasoning and content.

Text that a filter has returned is final. A filter holds back only text whose meaning is still open: the start of a
stop string or think tag, and line breaks that are removed if a think tag follows. The result does not depend on how the
input is divided into pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from semanticspec.records import Author
from semanticspec.text.thinking import ThinkTags

Channel = Literal["reasoning", "content"]


@dataclass(frozen=True, slots=True)
class TextPiece:
    """Text by one author."""

    author: Author
    text: str
    channel: Channel = "content"


class TextBuffer:
    """Text that is held back, with its authors."""

    def __init__(self) -> None:
        self._pieces: list[TextPiece] = []

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self._pieces)

    def append(self, piece: TextPiece) -> None:
        if piece.text:
            self._pieces.append(piece)

    def take(self, length: int) -> list[TextPiece]:
        """Removes the first `length` characters and returns them."""
        taken: list[TextPiece] = []
        while length > 0 and self._pieces:
            piece = self._pieces.pop(0)
            taken.append(replace(piece, text=piece.text[:length]))
            if len(piece.text) > length:
                self._pieces.insert(0, replace(piece, text=piece.text[length:]))
            length -= len(piece.text)
        return taken


class StopStringFilter:
    """Ends the text before the stop string that is complete first.

    Attributes:
        found: a stop string was found; further text is ignored.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._buffer = TextBuffer()
        self.found = False

    def push(self, piece: TextPiece) -> list[TextPiece]:
        """Adds text; returns the text that cannot be part of a stop string."""
        if self.found:
            return []
        self._buffer.append(piece)
        text = self._buffer.text
        matches = [(text.find(stop) + len(stop), text.find(stop)) for stop in self._stops if stop in text]
        if matches:
            self.found = True
            return self._buffer.take(min(matches)[1])
        return self._buffer.take(len(text) - _partial_match_length(text, self._stops))

    def close(self) -> list[TextPiece]:
        """Returns the text that was held back; call it after the last `push`."""
        return [] if self.found else self._buffer.take(len(self._buffer.text))


class ThinkSplitter:
    """Splits text into reasoning and content, and removes the think tags and the line breaks around them.

    Text that neither starts with a think tag nor follows a chat template that opens the reasoning is all content.

    Attributes:
        thinking: whether the next text is reasoning; None while this is undecided.
        has_reasoning: some of the text was reasoning.
    """

    def __init__(self, tags: ThinkTags, *, starts_in_thinking: bool) -> None:
        self._tags = tags
        self.thinking: bool | None = True if starts_in_thinking else None
        self.has_reasoning = starts_in_thinking
        self._buffer = TextBuffer()
        self._skip_newlines = starts_in_thinking

    def push(self, piece: TextPiece) -> list[TextPiece]:
        """Adds text; returns the text whose channel is certain."""
        self._buffer.append(piece)
        if self.thinking is None:
            self._detect_start(at_end=False)
        pieces = self._take_reasoning() if self.thinking else []
        if self.thinking is False:
            pieces += self._take_content()
        return pieces

    def close(self) -> list[TextPiece]:
        """Returns the text that was held back; call it after the last `push`."""
        if self.thinking is None:
            self._detect_start(at_end=True)
        if not self.thinking:
            return self._take_content()
        self._drop_newlines()
        return self._take("reasoning", len(self._buffer.text.rstrip("\n")))

    def _detect_start(self, *, at_end: bool) -> None:
        """Decides whether the text starts with a think tag, if enough of it is known."""
        text, tags = self._buffer.text, self._tags
        begin = text.lstrip()
        tag = next((tag for tag in (tags.start, tags.end) if begin.startswith(tag)), None)
        if tag is not None:
            self._buffer.take(len(text) - len(begin) + len(tag))
            self.thinking = self.has_reasoning = tag == tags.start
            self._skip_newlines = True
        elif at_end or not (tags.start.startswith(begin) or tags.end.startswith(begin)):
            self.thinking = False

    def _take_reasoning(self) -> list[TextPiece]:
        self._drop_newlines()
        text, tags = self._buffer.text, self._tags
        end = text.find(tags.end)
        if end < 0:
            # Hold back a partial end tag, and the line breaks that are removed if it turns out to be one.
            certain = text[: len(text) - _partial_match_length(text, (tags.whole_end, tags.end))]
            return self._take("reasoning", len(certain.rstrip("\n")))
        pieces = self._take("reasoning", len(text[:end].removesuffix(tags.before_end).rstrip("\n")))
        self._buffer.take(self._buffer.text.find(tags.end) + len(tags.end))
        self.thinking, self._skip_newlines = False, True
        return pieces

    def _take_content(self) -> list[TextPiece]:
        self._drop_newlines()
        return self._take("content", len(self._buffer.text))

    def _drop_newlines(self) -> None:
        """Removes the line breaks that directly follow a tag."""
        text = self._buffer.text
        if self._skip_newlines and text:
            self._buffer.take(len(text) - len(text.lstrip("\n")))
            self._skip_newlines = not self._buffer.text

    def _take(self, channel: Channel, length: int) -> list[TextPiece]:
        return [replace(piece, channel=channel) for piece in self._buffer.take(length)]


def _partial_match_length(text: str, words: Sequence[str]) -> int:
    """Returns the length of the longest suffix of `text` that is a proper prefix of one of `words`."""
    longest = min(len(text), max((len(word) for word in words), default=1) - 1)
    for length in range(longest, 0, -1):
        if any(word.startswith(text[-length:]) for word in words):
            return length
    return 0
