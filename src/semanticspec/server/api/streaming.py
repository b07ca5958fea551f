"""Text on its way to a client: cut at stop strings, parted into thinking and answer, nothing ever taken back.

Both stages hold back only what could still become something else: the beginning of a stop string, of a think tag,
or blank lines that are left out where the thinking ends. What comes out does not depend on how the text is cut
into pieces on its way in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from semanticspec.records import Author
from semanticspec.text.chat import THINK_END, THINK_START

Channel = Literal["reasoning", "content"]


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text by one author."""

    author: Author
    text: str


@dataclass(frozen=True, slots=True)
class ChannelPiece:
    """Some text by one author that belongs to the thinking or to the answer."""

    channel: Channel
    author: Author
    text: str


class Held:
    """Text that is held back, with its authors."""

    def __init__(self) -> None:
        self._pieces: list[Piece] = []

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self._pieces)

    def add(self, piece: Piece) -> None:
        if piece.text:
            self._pieces.append(piece)

    def take(self, length: int) -> list[Piece]:
        """Removes the first `length` characters and returns them."""
        taken: list[Piece] = []
        while length > 0 and self._pieces:
            piece = self._pieces.pop(0)
            taken.append(Piece(piece.author, piece.text[:length]))
            if len(piece.text) > length:
                self._pieces.insert(0, Piece(piece.author, piece.text[length:]))
            length -= len(piece.text)
        return taken

    def drop(self, length: int) -> None:
        """Removes the first `length` characters."""
        self.take(length)


class StopFinder:
    """Ends a text before the first stop string, the one that is complete first.

    Attributes:
        found: a stop string has come; nothing follows.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = Held()
        self.found = False

    def push(self, piece: Piece) -> list[Piece]:
        """Takes more text; returns what can no longer be part of a stop string."""
        if self.found:
            return []
        self._held.add(piece)
        text = self._held.text
        starts = [(text.find(stop) + len(stop), text.find(stop)) for stop in self._stops if stop in text]
        if starts:
            self.found = True
            return self._held.take(min(starts)[1])
        return self._held.take(len(text) - _beginning_at_end(text, self._stops))

    def close(self) -> list[Piece]:
        """What was held back, when no more text comes."""
        return [] if self.found else self._held.take(len(self._held.text))


class ThinkSplitter:
    """Parts a text into thinking and answer and leaves the tags out.

    Line breaks around the tags are left out too. A text that neither begins with `<think>` nor was begun inside the
    thinking by the chat template is all answer.

    Attributes:
        thinking: what comes next belongs to the thinking; None while that is open.
        thought: some of the text was thinking.
    """

    def __init__(self, *, inside: bool) -> None:
        self.thinking: bool | None = True if inside else None
        self.thought = inside
        self._held = Held()
        self._skip_newlines = inside

    def push(self, piece: Piece) -> list[ChannelPiece]:
        """Takes more text; returns what is certain about it."""
        self._held.add(piece)
        out: list[ChannelPiece] = []
        if self.thinking is None and not self._begin(at_end=False):
            return out
        if self.thinking:
            out += self._think()
        if not self.thinking:
            out += self._answer()
        return out

    def close(self) -> list[ChannelPiece]:
        """What was held back, when no more text comes."""
        if self.thinking is None:
            self._begin(at_end=True)
        if not self.thinking:
            return self._answer()
        self._drop_newlines()
        return self._out("reasoning", len(self._held.text.rstrip("\n")))

    def _begin(self, *, at_end: bool) -> bool:
        """Decides whether the text begins with `<think>`, if that can be told yet."""
        text = self._held.text
        start = text.lstrip()
        if start.startswith(THINK_START):
            self._held.drop(len(text) - len(start) + len(THINK_START))
            self.thinking = self.thought = self._skip_newlines = True
        elif at_end or not THINK_START.startswith(start):
            self.thinking = False
        return self.thinking is not None

    def _think(self) -> list[ChannelPiece]:
        self._drop_newlines()
        text = self._held.text
        end = text.find(THINK_END)
        if end < 0:
            # What may be the tag's beginning, and the line breaks that would then be left out before it.
            certain = text[: len(text) - _beginning_at_end(text, (THINK_END,))]
            return self._out("reasoning", len(certain.rstrip("\n")))
        out = self._out("reasoning", len(text[:end].rstrip("\n")))
        self._held.drop(self._held.text.find(THINK_END) + len(THINK_END))
        self.thinking, self._skip_newlines = False, True
        return out

    def _answer(self) -> list[ChannelPiece]:
        self._drop_newlines()
        return self._out("content", len(self._held.text))

    def _drop_newlines(self) -> None:
        """Leaves out the line breaks that come right after a tag."""
        text = self._held.text
        if self._skip_newlines and text:
            self._held.drop(len(text) - len(text.lstrip("\n")))
            self._skip_newlines = not self._held.text

    def _out(self, channel: Channel, length: int) -> list[ChannelPiece]:
        return [ChannelPiece(channel, piece.author, piece.text) for piece in self._held.take(length)]


def _beginning_at_end(text: str, words: Sequence[str]) -> int:
    """Length of the longest end of `text` that is the beginning of a word."""
    longest = min(len(text), max((len(word) for word in words), default=1) - 1)
    for length in range(longest, 0, -1):
        end = text[-length:]
        if any(word.startswith(end) for word in words):
            return length
    return 0
