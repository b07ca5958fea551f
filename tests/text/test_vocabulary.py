"""Segment ends, think tags, and the hand-over between vocabularies."""

from __future__ import annotations

import pytest

from semanticspec.errors import PromptError
from semanticspec.text.segments import Segmenter
from semanticspec.text.vocabulary import Translation
from tests.support.vocabularies import make_vocabulary


@pytest.fixture
def vocabulary():
    return make_vocabulary()


A, B, C, D, NEWLINE, BLANK, EOS, THINK, THINK_END = range(9)


def test_boundaries_are_the_tokens_with_a_blank_line(vocabulary):
    segmenter = Segmenter.of(vocabulary)
    assert segmenter.boundary_ids == {BLANK}
    assert segmenter.stop.ids == {BLANK, EOS, THINK_END}
    assert not segmenter.needs_pair_stops
    ids = [*vocabulary.encode("ab\n\nc\nd</think>a"), EOS]
    assert segmenter.split(ids) == [[A, B, BLANK], [C, NEWLINE, D, THINK_END], [A, EOS]]


def test_blank_lines_of_two_tokens_become_pairs():
    segmenter = Segmenter.of(make_vocabulary(blank_line=False))
    assert segmenter.needs_pair_stops
    assert segmenter.split([A, NEWLINE, NEWLINE, B]) == [[A, NEWLINE, NEWLINE], [B]]
    assert segmenter.split([A, NEWLINE, B]) == [[A, NEWLINE, B]]


def test_think_end_as_one_token_and_as_plain_text():
    segmenter = Segmenter.of(make_vocabulary())
    assert segmenter.think_end([A, THINK_END, B]) == 2
    assert segmenter.think_end([A, B]) is None
    letters = [*"abcd", "<", "/", "t", "h", "i", "n", "k", ">"]
    plain = make_vocabulary(letters, added=("<eos>",))
    assert plain.think_end_id is None
    ids = plain.encode("ab</think>cd")
    assert Segmenter.of(plain).think_end(ids) == len(plain.encode("ab</think>"))
    assert Segmenter.of(plain).think_end(plain.encode("ab</thin")) is None


def test_fingerprint_is_of_the_ordinary_tokens(vocabulary):
    assert vocabulary.fingerprint == make_vocabulary().fingerprint
    assert vocabulary.fingerprint == make_vocabulary(added=("<eos>", "<tool>")).fingerprint
    assert vocabulary.fingerprint != make_vocabulary(["a", "b", "d", "c"]).fingerprint
    assert vocabulary.fingerprint != make_vocabulary(blank_line=False).fingerprint


def test_added_tokens_are_mapped_by_name_and_ends_by_role(vocabulary):
    other = make_vocabulary(added=("<think>", "</think>", "<tool>", "<eos>"))
    there = Translation(vocabulary, other)
    assert there.by_ids
    assert there.ids([A, THINK, B, THINK_END, EOS]) == [A, 6, B, 7, 9]
    back = Translation(other, vocabulary)
    assert back.unmapped == {8}
    assert back.ids([A, 8, B]) == [A]
    assert back.ids([A, 7, 9]) == [A, THINK_END, EOS]


def test_distributions_follow_their_tokens(vocabulary):
    import torch

    other = make_vocabulary(added=("<think>", "</think>", "<tool>", "<eos>"))
    rows = torch.arange(1.0, 11.0)[None] / 55
    moved = Translation(other, vocabulary).distributions(rows)
    assert moved[0, EOS] == rows[0, 9]
    assert moved[0, THINK] == rows[0, 6]
    assert moved[0, A] == rows[0, A]
    assert float(moved.sum()) == pytest.approx(1 - 9 / 55)  # the tool token's share is nobody's


def test_different_tokens_are_handed_over_as_text(vocabulary):
    other = make_vocabulary(["d", "c", "b", "a"])
    there = Translation(vocabulary, other)
    assert not there.by_ids
    ids = there.ids([*vocabulary.encode("abd\n\n"), EOS])
    assert other.decode(ids) == "abd\n\n"
    assert ids[-1] == other.end_id


def test_chat_template_is_the_models_own_and_may_open_thinking():
    template = "{% for m in messages %}{{ m.content }}{% endfor %}{{ '\\n\\n<think>' }}"
    vocabulary = make_vocabulary(template=template)
    ids = vocabulary.render_prompt("ab")
    assert vocabulary.decode(ids) == "ab\n\n<think>"
    assert vocabulary.opens_thinking(ids)
    assert not make_vocabulary().opens_thinking(make_vocabulary().render_prompt("ab"))
    assert vocabulary.render_prompt([{"role": "user", "content": "ab"}]) == ids
    with pytest.raises(PromptError, match="empty"):
        vocabulary.render_prompt(" \n")


def test_text_stream_completes_characters():
    import json

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from semanticspec.text.vocabulary import Vocabulary

    alphabet = {token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(alphabet, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<eos>"])
    vocabulary = Vocabulary(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>"))
    text = json.loads('"a \\u00e9 \\u4e2d \\ud83d\\ude00 z"')
    stream = vocabulary.new_text_stream(vocabulary.encode("b"))
    pieces = [stream.push([i]) for i in vocabulary.encode(text)]
    assert "".join(pieces) == text
    assert "�" not in "".join(pieces)
    assert stream.push([vocabulary.end_id]) == ""
