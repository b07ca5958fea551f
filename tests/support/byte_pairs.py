"""Pairs over single bytes: they write a given text, with characters and think tags that several tokens make up."""

from __future__ import annotations

from collections.abc import Sequence

from tokenizers import pre_tokenizers

from semanticspec.decoding.pair import Model, Pair
from semanticspec.engines.scripted import NextProbabilities, ScriptedEngine
from semanticspec.text.vocabulary import Vocabulary
from tests.support.serving import FixedProbe
from tests.support.vocabularies import make_vocabulary

OPENS_THINKING = (
    "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<think>{% endif %}"
)
PLAIN = "{% for message in messages %}{{ message['content'] }}{% endfor %}|"


def byte_vocabulary(
    text: str, *, added: Sequence[str] = ("<eos>",), blank_line: bool = True, template: str = PLAIN
) -> Vocabulary:
    """A token for every byte of a text, and added tokens; think tags are plain text unless they are among them."""
    every = byte_level(text + "".join(added) + "<think>|a\n")
    return make_vocabulary(sorted(set(every) - {"Ċ"}), added=added, blank_line=blank_line, template=template)


def byte_level(text: str) -> str:
    """The characters that stand for a text's bytes in byte-level vocabularies."""
    (piece,) = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    return piece[0]


def writes(vocabulary: Vocabulary, text: str, prompt: str = "a") -> NextProbabilities:
    """Writes `text` after a prompt, then ends."""
    prompt_length = len(vocabulary.render_prompt(prompt))
    script = [*vocabulary.encode(text), vocabulary.end_id]
    return lambda ids: _one_hot(script[min(len(ids) - prompt_length, len(script) - 1)], vocabulary)


def pair_that_writes(text: str, draft_text: str | None = None, p_target: float = 1.0, **options) -> Pair:
    """A pair that writes a text; the draft's text can be another one of the same length."""
    vocabulary = byte_vocabulary(text + (draft_text or ""), **options)
    return Pair(
        _model(vocabulary, writes(vocabulary, text)),
        _model(vocabulary, writes(vocabulary, text if draft_text is None else draft_text)),
        FixedProbe(p_target),
        FixedProbe(1.0),
        "bytes",
    )


def pair_of_characters(p_target: float = 0.6) -> Pair:
    """A pair that draws characters of one to four bytes, blank lines and think tags, and ends at some time."""
    texts = ("a", "é", "字", "😀", "\n\n", "</think>", "<eos>")
    added = ("<eos>", "<think>", "</think>")
    vocabulary = byte_vocabulary("".join(texts), added=added, template=OPENS_THINKING)
    words = [vocabulary.encode(text) for text in texts]
    return Pair(
        _model(vocabulary, _draws(vocabulary, words, [6, 4, 4, 4, 3, 1, 0.7])),
        _model(vocabulary, _draws(vocabulary, words, [3, 6, 4, 5, 3, 1, 0.7])),
        FixedProbe(p_target),
        FixedProbe(1.0),
        "characters",
    )


def _draws(vocabulary: Vocabulary, words: list[list[int]], weights: list[float]) -> NextProbabilities:
    size = _size(vocabulary)
    following: dict[tuple[int, ...], list[float]] = {}
    for word, weight in zip(words, weights, strict=True):
        for length in range(len(word)):
            row = following.setdefault(tuple(word[:length]), [0.0] * size)
            row[word[length]] += weight
    longest = max(map(len, words)) - 1

    def next_probabilities(ids: tuple[int, ...]) -> list[float]:
        begun = next(ids[-n:] for n in range(longest, -1, -1) if n == 0 or ids[-n:] in following)
        row = following[begun] if begun in following else following[()]
        return [p / sum(row) for p in row]

    return next_probabilities


def _model(vocabulary: Vocabulary, next_probabilities: NextProbabilities) -> Model:
    return Model(ScriptedEngine(next_probabilities, _size(vocabulary)), vocabulary)


def _one_hot(token_id: int, vocabulary: Vocabulary) -> list[float]:
    row = [0.0] * _size(vocabulary)
    row[token_id] = 1.0
    return row


def _size(vocabulary: Vocabulary) -> int:
    return 1 + max(vocabulary.tokenizer.get_vocab().values())
