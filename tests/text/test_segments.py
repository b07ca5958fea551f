"""Segment boundaries are derived from the tokenizer."""

from __future__ import annotations

from semanticspec.text.segments import Segmenter
from tests.support.vocabularies import BLANK, EOS, NEWLINE, THINK_END, A, B, C, D, make_vocabulary


def test_boundaries_are_tokens_with_a_blank_line():
    vocabulary = make_vocabulary()
    segmenter = Segmenter.of(vocabulary)
    assert segmenter.boundary_ids == {BLANK}
    assert segmenter.stop.ids == {BLANK, EOS, THINK_END}
    assert not segmenter.needs_pair_stops
    ids = [*vocabulary.encode("ab\n\nc\nd</think>a"), EOS]
    assert segmenter.split(ids) == [[A, B, BLANK], [C, NEWLINE, D, THINK_END], [A, EOS]]


def test_blank_lines_of_two_tokens_become_pair_stops():
    segmenter = Segmenter.of(make_vocabulary(blank_line=False))
    assert segmenter.needs_pair_stops
    assert segmenter.split([A, NEWLINE, NEWLINE, B]) == [[A, NEWLINE, NEWLINE], [B]]
    assert segmenter.split([A, NEWLINE, B]) == [[A, NEWLINE, B]]


def test_think_end_is_found_as_one_token_and_as_plain_text():
    segmenter = Segmenter.of(make_vocabulary())
    assert segmenter.think_end([A, THINK_END, B]) == 2
    assert segmenter.think_end([A, B]) is None
    letters = [*"abcd", "<", "/", "t", "h", "i", "n", "k", ">"]
    plain = make_vocabulary(letters, added=("<eos>",))
    assert plain.think_end_id is None
    ids = plain.encode("ab</think>cd")
    assert Segmenter.of(plain).think_end(ids) == len(plain.encode("ab</think>"))
    assert Segmenter.of(plain).think_end(plain.encode("ab</thin")) is None
