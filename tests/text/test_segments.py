"""Segment boundaries are derived from the tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from semanticspec.text.segments import Segmenter
from semanticspec.text.vocabulary import Vocabulary
from tests.support import tokenizer_kinds as kinds
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


DATA = Path(__file__).parents[1] / "data" / "tokenizers"
BEFORE = [
    "x",
    "end.",
    "3)",
    "}",
    "))",
    "```",
    "$$",
    "**",
    "?",
    "!",
    "。",
    ":",
    "é",
    "😀",
    "1",
    " ",
    "--",
    '"',
]
AFTER = ["So", "1", "- ", "$$", "```", "**", "  x", "中", "😀", "(", "\n", "\n\nx", ""]


def real(name: str, eos: str) -> Vocabulary:
    """Loads a tokenizer of tests/data/tokenizers."""
    return Vocabulary(PreTrainedTokenizerFast(tokenizer_file=str(DATA / f"{name}.json"), eos_token=eos))


BOUNDARIES: dict[str, tuple[Callable[[], Vocabulary], set[str], bool]] = {
    "qwen3": (partial(real, "qwen3", "<|im_end|>"), {"\n\n", ".\n\n", "\n\n\n", ")\n\n", " \n\n"}, False),
    "gpt-oss": (partial(real, "gpt-oss", "<|return|>"), {"\n\n", ".\n\n", "?\n\n", "!\n\n"}, False),
    "deepseek-v3": (
        partial(real, "deepseek-v3", "<｜end▁of▁sentence｜>"),
        {"\n\n", ".\n\n", "\n\n\n"},
        False,
    ),
    "gemma (synthetic)": (kinds.gemma_like, {"\n" * n for n in range(2, 6)}, False),
    "llama 2, mistral (synthetic)": (kinds.sentencepiece, set(), True),
    "llama 2, mistral, new (synthetic)": (partial(kinds.sentencepiece, legacy=False), set(), True),
    "unigram (synthetic)": (kinds.unigram, set(), True),
    "llama 3 (synthetic)": (partial(kinds.byte_level, split_digits=False), {"\n\n"}, False),
    "no blank-line tokens (synthetic)": (partial(kinds.byte_level, blank_lines=False), {"\n\n"}, False),
}


@pytest.mark.parametrize("name", BOUNDARIES)
def test_every_blank_line_ends_a_segment(name: str) -> None:
    make, some_boundaries, pairs = BOUNDARIES[name]
    vocabulary = make()
    segmenter = Segmenter.of(vocabulary)
    texts = {vocabulary.decode([i]) for i in segmenter.boundary_ids}
    assert some_boundaries <= texts
    assert all("\n\n" in text for text in texts)
    assert segmenter.needs_pair_stops == pairs
    for before, after in product(BEFORE, AFTER):
        ids = vocabulary.encode(f"x {before}\n\n{after}")
        first = vocabulary.decode(segmenter.split(ids)[0])
        assert first.startswith(f"x {before}\n\n"), (before, after)
        assert vocabulary.decode(ids) == f"x {before}\n\n{after}"


@pytest.mark.parametrize("name", BOUNDARIES)
def test_a_single_newline_ends_no_segment(name: str) -> None:
    vocabulary = BOUNDARIES[name][0]()
    ids = vocabulary.encode("So x\nthe cat\n\tsat")
    assert Segmenter.of(vocabulary).split(ids) == [ids]


@pytest.mark.parametrize(
    ("name", "stops"),
    [
        ("qwen3", {"<|im_end|>", "</think>"}),
        ("gpt-oss", {"<|return|>", "<|end|>"}),
        ("deepseek-v3", {"<｜end▁of▁sentence｜>"}),
        ("gemma (synthetic)", {"<eos>"}),
    ],
)
def test_segments_also_end_where_text_or_reasoning_ends(name: str, stops: set[str]) -> None:
    vocabulary = BOUNDARIES[name][0]()
    segmenter = Segmenter.of(vocabulary)
    others = segmenter.stop.ids - segmenter.boundary_ids
    assert set(vocabulary.tokenizer.convert_ids_to_tokens(list(others))) == stops
