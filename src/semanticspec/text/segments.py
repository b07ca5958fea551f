"""Segment boundaries: a segment (one reasoning step) ends at a blank line, at `</think>` or at the end of the text.

Models with other think tags end the segment there (`ThinkTags`).

Boundary tokens are derived from the tokenizer: every token whose text contains a blank line. Tokenizers that encode a
blank line as two tokens get pairs of tokens. Deviation from the paper: its scripts list eight ids of the Qwen2
vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from semanticspec.records import Stop
from semanticspec.text.vocabulary import Vocabulary

BOUNDARY = "\n\n"
_NEWLINE_MARKS = ("\n", "Ċ", "<0x0A>")  # plain, byte-level BPE, byte fallback


@dataclass(frozen=True, slots=True)
class Segmenter:
    """Finds the segment boundaries of one vocabulary.

    Attributes:
        boundary_ids: tokens whose text contains a blank line.
        stop: stop condition for one segment: boundaries, `</think>` and end of text.
        text_stop: stop condition for the whole text: end of text only.
    """

    vocabulary: Vocabulary
    boundary_ids: frozenset[int]
    stop: Stop
    text_stop: Stop

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> Segmenter:
        """Derives the boundary tokens from a tokenizer."""
        newline_tokens = _tokens_with_newline(vocabulary)
        boundary_ids = frozenset(i for i, text in newline_tokens.items() if BOUNDARY in text)
        ids = boundary_ids | vocabulary.end_ids
        ids |= _think_end_ids(vocabulary)
        if _encodes_blank_line_as_one_token(vocabulary, boundary_ids):
            stop = Stop(ids)
        else:
            first = frozenset(i for i, text in newline_tokens.items() if text.endswith("\n"))
            second = frozenset(i for i, text in newline_tokens.items() if text.startswith("\n"))
            stop = Stop(ids, first, second)
        return cls(vocabulary, boundary_ids, stop, Stop(vocabulary.end_ids))

    @property
    def needs_pair_stops(self) -> bool:
        """Whether the engine must support stopping at pairs of tokens."""
        return bool(self.stop.pair_first)

    def think_end(self, ids: Sequence[int]) -> int | None:
        """Returns the number of leading tokens up to and including `</think>`; None if it does not occur."""
        end_id = self.vocabulary.think_end_id
        if end_id is not None:
            return list(ids).index(end_id) + 1 if end_id in ids else None
        end = self.vocabulary.think_tags.end
        if end not in self.vocabulary.decode(ids):
            return None
        return next(n for n in range(1, len(ids) + 1) if end in self.vocabulary.decode(ids[:n]))

    def split(self, ids: Sequence[int]) -> list[list[int]]:
        """Splits token ids into segments. Their concatenation equals the input."""
        segments: list[list[int]] = [[]]
        previous = -1
        for i in ids:
            segments[-1].append(i)
            if self.stop.ends(previous, i):
                segments.append([])
            previous = i
        return [segment for segment in segments if segment]


def _tokens_with_newline(vocabulary: Vocabulary) -> dict[int, str]:
    """Returns id and text of every token that contains a newline, added ones (Gemma's blank lines) too."""
    candidates = {i for t, i in vocabulary.base_tokens.items() if any(mark in t for mark in _NEWLINE_MARKS)}
    added = {i: text for i, text in vocabulary.added_tokens.items() if "\n" in text}
    return {i: vocabulary.decode([i]) for i in candidates} | added


def _think_end_ids(vocabulary: Vocabulary) -> frozenset[int]:
    """Returns the token that ends the reasoning, or that begins its end if it is an added token."""
    if vocabulary.think_end_id is not None:
        return frozenset({vocabulary.think_end_id})
    first = vocabulary.encode(vocabulary.think_tags.whole_end)[:1]
    return frozenset(i for i in first if i in vocabulary.added_tokens)


def _encodes_blank_line_as_one_token(vocabulary: Vocabulary, boundary_ids: frozenset[int]) -> bool:
    samples = (f"x.{BOUNDARY}Y", f"x{BOUNDARY}Y", f"3){BOUNDARY}1")
    return all(boundary_ids.intersection(vocabulary.encode(sample)) for sample in samples)
