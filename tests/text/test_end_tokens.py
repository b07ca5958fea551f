"""Which tokens end a text: those that the model names."""

from __future__ import annotations

import pytest

from semanticspec.errors import ModelError
from semanticspec.text.end_tokens import find_end_ids
from semanticspec.text.vocabulary import Vocabulary
from tests.support import tokenizer_kinds as kinds
from tests.support.vocabularies import make_vocabulary


def texts(vocabulary: Vocabulary) -> set[str]:
    return set(vocabulary.tokenizer.convert_ids_to_tokens(list(vocabulary.end_ids)))


def test_an_html_tag_is_not_an_end() -> None:
    vocabulary = kinds.gemma_like()
    assert texts(vocabulary) == {"<eos>"}
    assert vocabulary.decode(vocabulary.encode("<s>x</s> on")) == "<s>x</s> on"


def test_the_end_of_a_message_in_a_channel_is_not_an_end() -> None:
    assert texts(kinds.channels()) == {"<|return|>"}


def test_ends_of_the_generation_config_and_of_the_chat_template_count() -> None:
    added = ("<eos>", "<|im_end|>", "<end_of_turn>", "<|endoftext|>")
    template = "{{ messages[0].content }}<|im_end|>"
    vocabulary = make_vocabulary(added=added, template=template)
    assert texts(vocabulary) == {"<eos>", "<|im_end|>"}
    named = [vocabulary.tokenizer.convert_tokens_to_ids("<end_of_turn>")]
    assert texts(Vocabulary(vocabulary.tokenizer, named)) == {"<eos>", "<|im_end|>", "<end_of_turn>"}
    vocabulary.tokenizer.pad_token = "<|endoftext|>"
    assert texts(Vocabulary(vocabulary.tokenizer)) == {"<eos>", "<|im_end|>", "<|endoftext|>"}


def test_known_ends_are_used_where_the_model_names_none() -> None:
    tokenizer = make_vocabulary(added=("<eos>", "</s>", "<|end|>")).tokenizer
    tokenizer.eos_token = None
    assert set(tokenizer.convert_ids_to_tokens(list(find_end_ids(tokenizer, ())))) == {"</s>", "<|end|>"}
    without = make_vocabulary().tokenizer
    without.eos_token = None
    with pytest.raises(ModelError, match="no end-of-text token"):
        find_end_ids(without, ())
