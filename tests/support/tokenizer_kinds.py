"""Small tokenizers of the kinds that real models have, trained on a few lines of mixed scripts."""

from __future__ import annotations

from functools import cache
from random import Random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from semanticspec.text.vocabulary import Vocabulary

WORDS = (
    "The cat sat on the mat So x = 12345 3.14 f(x) don't café Straße 中文 字符 こんにちは 안녕 привет नमस्ते שלום مرحبا "
    "😀 👩\u200d👩\u200d👧 ≥½ ½ { }"
).split()
GAPS = [" ", " ", " ", "", "  ", "\n", "\n\n", "\n\n\n", "\n  ", "\t", ", ", ".\n\n"]
_GPT_SPLIT = r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def mixed_text(random: Random, num_words: int) -> str:
    """Returns words of several scripts, with spaces, blank lines and numbers between them."""
    return "".join(random.choice(WORDS) + random.choice(GAPS) for _ in range(num_words))


@cache
def byte_level(*, split_digits: bool = True, blank_lines: bool = True) -> Vocabulary:
    """Like Qwen, Llama 3, gpt-oss and SmolLM2."""
    backend = Tokenizer(models.BPE())
    split = Regex(_GPT_SPLIT if split_digits else _GPT_SPLIT.replace(r"\p{N}|", r"\p{N}{1,3}|", 1))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(split, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        min_frequency=1,
    )
    lines = [
        "The cat sat on the mat. So x = 123\n\n" if blank_lines else "The cat sat. So x\n",
        "中文 the\n\n\n",
    ]
    backend.train_from_iterator(lines * 3, trainer)
    return _wrapped(backend, "<|im_end|>", ["<|im_end|>", "<think>", "</think>"])


@cache
def sentencepiece(*, legacy: bool = True, bos: bool = True) -> Vocabulary:
    """Like Llama 2 and Mistral: a space before each text, and bytes for rare characters.

    Args:
        legacy: the space is put by the normalizer, as older conversions do; otherwise by the pre-tokenizer.
        bos: encoding a whole text puts `<s>` first.
    """
    pieces = ["<unk>", "<s>", "</s>", *_BYTES]
    words = ["▁The", "▁the", "▁cat", "▁sat", "▁on", "▁mat", "▁So", "▁▁", "中", "é", "п"]
    vocab, merges = _merged(pieces, words if legacy else [*words, "▁x"])
    backend = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if legacy:
        steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        backend.normalizer = normalizers.Sequence(steps)
    else:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    backend.decoder = _sentencepiece_decoder(strip=True)
    return _wrapped(backend, "</s>", ["<unk>", "<s>", "</s>"], bos="<s>" if bos else None)


@cache
def gemma_like() -> Vocabulary:
    """Like Gemma 3: no space before a text; runs of newlines and HTML tags, `</s>` among them, are added tokens."""
    added = [
        "<pad>",
        "<eos>",
        "<bos>",
        "<unk>",
        "<end_of_turn>",
        *("\n" * n for n in range(1, 6)),
        "<table>",
        "</s>",
    ]
    vocab, merges = _merged(
        [*added, *_BYTES], ["The", "▁the", "▁cat", "▁sat", "▁on", "▁mat", "So", "▁▁", "中"]
    )
    backend = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.decoder = _sentencepiece_decoder(strip=False)
    return _wrapped(backend, "<eos>", added, bos="<bos>")


@cache
def unigram() -> Vocabulary:
    """A Unigram model with byte fallback."""
    pieces = [
        "<unk>",
        "</s>",
        *_BYTES,
        "▁The",
        "▁the",
        "▁cat",
        "▁sat",
        "▁on",
        "▁mat",
        "▁So",
        "▁",
        *"abcdefghxyz=",
    ]
    scores = [(piece, 0.0 if n < 2 else -10.0 - n / 1000) for n, piece in enumerate(pieces)]
    backend = Tokenizer(models.Unigram(scores, unk_id=0, byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    backend.decoder = _sentencepiece_decoder(strip=True)
    return _wrapped(backend, "</s>", ["<unk>", "</s>"])


@cache
def channels() -> Vocabulary:
    """Like gpt-oss: reasoning and answer in channels; `<|end|>` ends a message, not the turn."""
    added = ["<|return|>", "<|channel|>", "<|message|>", "<|start|>", "<|end|>"]
    backend = Tokenizer(
        models.BPE({c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, [])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return _wrapped(backend, "<|return|>", added)


def _merged(pieces: list[str], words: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Returns a vocabulary and merges that build each word from its characters, from left to right."""
    letters = [chr(c) for c in range(33, 127)]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys([*pieces, "▁", *letters, *"".join(words)]))}
    merges = []
    for word in words:
        for n in range(2, len(word) + 1):
            if word[:n] not in vocab:
                vocab[word[:n]] = len(vocab)
                merges.append((word[: n - 1], word[n - 1]))
    return vocab, merges


def _sentencepiece_decoder(*, strip: bool) -> decoders.Decoder:
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*steps, *([decoders.Strip(" ", 1, 0)] if strip else [])])


def _wrapped(backend: Tokenizer, eos: str, added: list[str], bos: str | None = None) -> Vocabulary:
    backend.add_special_tokens([AddedToken(text, normalized=False) for text in added])
    if bos:
        bos_id = backend.token_to_id(bos)
        backend.post_processor = TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, bos_id)])
    unk = {"unk_token": "<unk>"} if "<unk>" in added else {}
    return Vocabulary(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=eos, bos_token=bos, **unk))
