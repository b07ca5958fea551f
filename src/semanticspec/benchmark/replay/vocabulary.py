"""A vocabulary for models with random weights: every id is a word, three of them have a meaning."""

from __future__ import annotations

from functools import lru_cache

from semanticspec.text.chat import THINK_END as THINK_END_TEXT
from semanticspec.text.vocabulary import Vocabulary

BOUNDARY, END, THINK_END = 0, 1, 2
PLAIN = 3
"""The first id that ends nothing."""


@lru_cache(maxsize=2)
def synthetic_vocabulary(size: int) -> Vocabulary:
    """Makes a vocabulary of `size` ids; words are separated by spaces."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = {BOUNDARY: "\n\n", END: "<end>", THINK_END: THINK_END_TEXT}
    words = {special.get(i, f"w{i}"): i for i in range(size)}
    backend = Tokenizer(models.WordLevel(words, unk_token="<end>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens([AddedToken(special[i], normalized=False) for i in (END, THINK_END)])
    return Vocabulary(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>"))
