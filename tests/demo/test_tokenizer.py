"""The demo pair's tokenizer: one token a word, digits alone, any text survives."""

from __future__ import annotations

import random
import re

import pytest

from semanticspec.demo import draft_path, target_path
from semanticspec.demo.grammar import problems, write_trace

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def tokenizer() -> transformers.PreTrainedTokenizerFast:
    return transformers.AutoTokenizer.from_pretrained(target_path(), local_files_only=True)


@pytest.mark.parametrize(
    "text", ["", "Grüße, 你好 \U0001f642!", "a\n\n\nb\t c  ", "x = 1234.5", "é́\x00\u200b"]
)
def test_any_text_survives(tokenizer: transformers.PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_words_digits_and_boundaries_are_single_tokens(
    tokenizer: transformers.PreTrainedTokenizerFast,
) -> None:
    assert tokenizer.tokenize("Mia has 123 pens.\n\nThen") == [
        *(["M", "ia"] if "Mia" not in tokenizer.get_vocab() else ["Mia"]),
        "Ġhas",
        "Ġ1",
        "2",
        "3",
        "Ġpens",
        ".ĊĊ",
        "Then",
    ]


def test_solutions_take_one_token_a_word(tokenizer: transformers.PreTrainedTokenizerFast) -> None:
    rng = random.Random(0)
    for problem in problems("validation", 100):
        for style in ("target", "draft"):
            text = "".join(piece.text for piece in write_trace(problem, style, rng))
            words = re.findall(r" ?[A-Za-z]+", text.replace("think", ""))
            assert [word for word in words if len(tokenizer.tokenize(word)) > 1] == []
            assert tokenizer.decode(tokenizer.encode(text)) == text


def test_chat_template_opens_the_thinking(tokenizer: transformers.PreTrainedTokenizerFast) -> None:
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "How many?"}], tokenize=False, add_generation_prompt=True
    )
    assert text == "<|im_start|>user\nHow many?<|im_end|>\n<|im_start|>assistant\n<think>\n"
    assert tokenizer.eos_token == "<|im_end|>"


def test_the_pair_shares_the_tokenizer(tokenizer: transformers.PreTrainedTokenizerFast) -> None:
    draft = transformers.AutoTokenizer.from_pretrained(draft_path(), local_files_only=True)
    assert draft.get_vocab() == tokenizer.get_vocab()
    assert (draft_path() / "tokenizer.json").read_bytes() == (target_path() / "tokenizer.json").read_bytes()
