"""Where a segment (one reasoning step) ends: blank lines, `</think>`, end of text.

The boundary tokens are derived from the tokenizer: every token whose text contains a blank line. (The authors'
scripts list eight ids of the Qwen-2 vocabulary by hand.) Tokenizers that write a blank line as two tokens get
pairs instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from semanticspec.records import Stop
from semanticspec.text.vocabulary import THINK_END, Vocabulary

BOUNDARY = "\n\n"
_NEWLINE_MARKS = ("\n", "Ċ", "<0x0A>")  # plain, byte-level BPE, byte fallback


@dataclass(frozen=True, slots=True)
class Segmenter:
    """The segment ends of one vocabulary.

    Attributes:
        vocabulary: whose ends these are.
        boundary_ids: tokens whose text contains a blank line.
        stop: ends of one segment: boundaries, `</think>` and end of text.
        text_stop: end of text alone.
    """

    vocabulary: Vocabulary
    boundary_ids: frozenset[int]
    stop: Stop
    text_stop: Stop

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> Segmenter:
        """Derives the segment ends from a tokenizer."""
        newline_tokens = _tokens_with_newline(vocabulary)
        boundary_ids = frozenset(i for i, text in newline_tokens.items() if BOUNDARY in text)
        ids = boundary_ids | vocabulary.end_ids
        if vocabulary.think_end_id is not None:
            ids |= {vocabulary.think_end_id}
        if _writes_blank_line_as_one_token(vocabulary, boundary_ids):
            stop = Stop(ids)
        else:
            first = frozenset(i for i, text in newline_tokens.items() if text.endswith("\n"))
            second = frozenset(i for i, text in newline_tokens.items() if text.startswith("\n"))
            stop = Stop(ids, first, second)
        return cls(vocabulary, boundary_ids, stop, Stop(vocabulary.end_ids))

    @property
    def needs_pair_stops(self) -> bool:
        """Whether an engine must be able to stop at pairs of tokens."""
        return bool(self.stop.pair_first)

    def think_end(self, ids: Sequence[int]) -> int | None:
        """How many of these ids it takes until `</think>` is complete; None if it is not among them."""
        end_id = self.vocabulary.think_end_id
        if end_id is not None:
            return list(ids).index(end_id) + 1 if end_id in ids else None
        if THINK_END not in self.vocabulary.decode(ids):
            return None
        return next(n for n in range(1, len(ids) + 1) if THINK_END in self.vocabulary.decode(ids[:n]))

    def split(self, ids: Sequence[int]) -> list[list[int]]:
        """Cuts a text into its segments; joined they are the text again."""
        segments: list[list[int]] = [[]]
        previous = -1
        for i in ids:
            segments[-1].append(i)
            if self.stop.ends(previous, i):
                segments.append([])
            previous = i
        return [segment for segment in segments if segment]


def _tokens_with_newline(vocabulary: Vocabulary) -> dict[int, str]:
    """Text of every ordinary token that contains a line break."""
    candidates = [
        i
        for token, i in vocabulary.tokenizer.get_vocab().items()
        if i not in vocabulary.added_tokens and any(mark in token for mark in _NEWLINE_MARKS)
    ]
    return {i: vocabulary.decode([i]) for i in candidates}


def _writes_blank_line_as_one_token(vocabulary: Vocabulary, boundary_ids: frozenset[int]) -> bool:
    samples = (f"x.{BOUNDARY}Y", f"x{BOUNDARY}Y", f"3){BOUNDARY}1")
    return all(boundary_ids.intersection(vocabulary.encode(sample)) for sample in samples)
