"""Fingerprints, and streaming detokenization."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from semanticspec.text.vocabulary import Vocabulary
from tests.support.vocabularies import make_vocabulary


def test_the_fingerprint_covers_base_tokens_only():
    vocabulary = make_vocabulary()
    assert vocabulary.fingerprint == make_vocabulary().fingerprint
    assert vocabulary.fingerprint == make_vocabulary(added=("<eos>", "<tool>")).fingerprint
    assert vocabulary.fingerprint != make_vocabulary(["a", "b", "d", "c"]).fingerprint
    assert vocabulary.fingerprint != make_vocabulary(blank_line=False).fingerprint


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
