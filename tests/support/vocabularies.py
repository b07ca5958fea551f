"""Small tokenizers shared by many tests."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from semanticspec.text.vocabulary import Vocabulary

LETTERS = ["a", "b", "c", "d"]
A, B, C, D, NEWLINE, BLANK, EOS, THINK, THINK_END = range(9)
"""Ids of `make_vocabulary()`."""


def make_vocabulary(
    letters: Sequence[str] = LETTERS,
    *,
    added: Sequence[str] = ("<eos>", "<think>", "</think>"),
    blank_line: bool = True,
    padding: int = 0,
    template: str | None = None,
) -> Vocabulary:
    """Makes a byte-level vocabulary: letters, newline, blank line (optional), padding of GGUF files, added tokens."""
    tokens = [*letters, "Ċ", *(["ĊĊ"] if blank_line else [])]
    tokens += [f"[PAD{len(tokens) + n}]" for n in range(padding)]
    model = models.BPE({token: i for i, token in enumerate(tokens)}, [("Ċ", "Ċ")] if blank_line else [])
    backend = Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(text, normalized=False) for text in added])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>")
    tokenizer.chat_template = template
    return Vocabulary(tokenizer)
