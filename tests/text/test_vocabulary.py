"""Fingerprints, and streaming detokenization."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from semanticspec.text.vocabulary import Vocabulary
from tests.support import tokenizer_kinds as kinds
from tests.support.vocabularies import make_vocabulary


def test_the_fingerprint_covers_base_tokens_only():
    vocabulary = make_vocabulary()
    assert vocabulary.fingerprint == make_vocabulary().fingerprint
    assert vocabulary.fingerprint == make_vocabulary(added=("<eos>", "<tool>")).fingerprint
    assert vocabulary.fingerprint != make_vocabulary(["a", "b", "d", "c"]).fingerprint
    assert vocabulary.fingerprint != make_vocabulary(blank_line=False).fingerprint


def test_padding_tokens_do_not_change_the_fingerprint():
    plain, padded = make_vocabulary(), make_vocabulary(padding=3)
    assert padded.fingerprint == plain.fingerprint == plain.padded_fingerprint
    assert padded.padded_fingerprint != plain.fingerprint


@pytest.mark.parametrize("make", [kinds.sentencepiece, kinds.gemma_like, kinds.unigram, kinds.byte_level])
def test_a_text_stream_decodes_bytes_of_every_tokenizer(make):
    vocabulary = make()
    text = "a\nb 😀\n\n中文 é\n  The cat"
    stream = vocabulary.new_text_stream()
    pieces = [stream.push([i]) for i in vocabulary.encode(text)]
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)
    assert stream.held == ()


def test_a_text_stream_survives_bytes_that_are_no_characters():
    vocabulary = kinds.sentencepiece()
    ids = vocabulary.tokenizer.convert_tokens_to_ids(
        ["<0xF0>", "<0x0A>", "<0xF0>", "<0x9F>", "a", "<0xFF>", "b"]
    )
    stream = vocabulary.new_text_stream()
    text = "".join(stream.push([i]) for i in ids)
    assert text.replace("\ufffd", "").replace("\n", "") == "ab"


def test_a_leading_space_belongs_to_the_text():
    vocabulary = kinds.sentencepiece()
    words = ["The", " cat", " sat"]
    assert [vocabulary.decode(vocabulary.encode(word)) for word in words] == words


def test_a_text_stream_emits_complete_characters():
    alphabet = {token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(alphabet, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<eos>"])
    vocabulary = Vocabulary(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>"))
    text = "a é 中 😀 z"
    stream = vocabulary.new_text_stream()
    pieces = [stream.push([i]) for i in vocabulary.encode(text)]
    assert "".join(pieces) == text
    assert "�" not in "".join(pieces)
    assert stream.push([vocabulary.end_id]) == ""
