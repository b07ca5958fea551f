"""Text that two tokenizers exchange arrives as it was written, whatever the pieces in which it was written."""

from __future__ import annotations

from itertools import permutations
from random import Random

import pytest

from semanticspec.text.translation import TranslatedContext, Translation
from semanticspec.text.vocabulary import Vocabulary
from tests.support import tokenizer_kinds as kinds

VOCABULARIES = {
    "byte-level": kinds.byte_level(),
    "byte-level-digits": kinds.byte_level(split_digits=False, blank_lines=False),
    "sentencepiece": kinds.sentencepiece(),
    "sentencepiece-new": kinds.sentencepiece(legacy=False, bos=False),
    "gemma": kinds.gemma_like(),
    "unigram": kinds.unigram(),
}
PAIRS = list(permutations(VOCABULARIES, 2))
SEGMENTS_PER_PAIR = 34  # 1,020 in all


def ids_in_pieces(random: Random, ids: list[int]) -> list[list[int]]:
    cuts = sorted(random.sample(range(len(ids) + 1), min(len(ids), random.randrange(1, 6))))
    return [ids[a:b] for a, b in zip([0, *cuts], [*cuts, len(ids)], strict=True)]


def context_of(translation: Translation, pieces: list[list[int]]) -> list[int]:
    context = TranslatedContext(translation, [])
    for piece in pieces:
        context.append(piece)
        context.ids()  # as if the draft were called
    return context.ids()


def named(name: str) -> Vocabulary:
    return VOCABULARIES[name]


@pytest.mark.parametrize(("source", "sink"), PAIRS)
def test_segments_of_mixed_scripts_make_the_round_trip(source: str, sink: str) -> None:
    random = Random(f"{source} {sink}")
    there, back = Translation(named(source), named(sink)), Translation(named(sink), named(source))
    assert not there.by_ids
    for _ in range(SEGMENTS_PER_PAIR):
        text = kinds.mixed_text(random, random.randrange(1, 12))
        ids = named(source).encode(text)
        assert named(source).decode(ids) == text
        arrived = context_of(there, ids_in_pieces(random, ids))
        assert named(sink).decode(arrived) == text
        assert named(sink).tokenizer.bos_token_id not in arrived
        assert named(source).decode(back.ids(there.ids(ids))) == text


@pytest.mark.parametrize(("source", "sink"), PAIRS)
def test_a_context_does_not_depend_on_the_pieces_it_was_written_in(source: str, sink: str) -> None:
    random = Random(f"pieces {source} {sink}")
    translation = Translation(named(source), named(sink))
    for _ in range(10):
        ids = named(source).encode(kinds.mixed_text(random, 20))
        whole = translation.context_ids(ids)
        assert context_of(translation, ids_in_pieces(random, ids)) == whole
        assert context_of(translation, [[i] for i in ids]) == whole


@pytest.mark.parametrize("text", ["The cat sat on the mat", "12345", "a 😀 b", " The", "\n\nThe"])
@pytest.mark.parametrize(("source", "sink"), PAIRS)
def test_tokens_written_one_by_one_arrive_as_the_text(source: str, sink: str, text: str) -> None:
    translation = Translation(named(source), named(sink))
    arrived = context_of(translation, [[i] for i in named(source).encode(text)])
    assert named(sink).decode(arrived) == text
    assert arrived == named(sink).encode(text)


@pytest.mark.parametrize(("source", "sink"), PAIRS)
def test_a_draft_cut_inside_a_character_is_cut_before_it(source: str, sink: str) -> None:
    translation = Translation(named(source), named(sink))
    text = "a 😀 नमस्ते 👩‍👩‍👧."
    ids = named(source).encode(text)
    for length in range(len(ids) + 1):
        usable = translation.num_usable(ids[:length])
        arrived = named(sink).decode(translation.ids(ids[:length]))
        assert text.startswith(arrived)
        assert arrived == named(source).decode(ids[:usable])
        assert length - usable < 4


def test_a_character_that_is_not_complete_waits_for_its_end() -> None:
    source, sink = kinds.byte_level(), kinds.sentencepiece()
    context = TranslatedContext(Translation(source, sink), [])
    *first, last = source.encode("a😀")
    context.append(first)
    assert context.ends_inside_character
    assert sink.decode(context.ids()) == "a"
    ahead = context.copy()
    ahead.append([last])
    assert sink.decode(ahead.ids()) == "a😀"
    assert sink.decode(context.ids()) == "a"
    context.append([last])
    assert not context.ends_inside_character
    assert context.ids() == ahead.ids()


def test_an_end_of_text_is_passed_on_by_role() -> None:
    source, sink = kinds.byte_level(), kinds.sentencepiece()
    ids = Translation(source, sink).ids([*source.encode("The cat"), source.end_id, *source.encode("x")])
    assert sink.decode(ids) == "The cat"
    assert ids[-1] == sink.end_id
    assert ids.count(sink.end_id) == 1


def test_think_tags_are_those_of_the_sink() -> None:
    think, channels = kinds.byte_level(), kinds.channels()
    there, back = Translation(channels, think), Translation(think, channels)
    own = "<|channel|>analysis<|message|>So x<|end|><|start|>assistant<|channel|>final<|message|>The cat"
    assert think.decode(there.context_ids(channels.encode(own))) == "<think>So x</think>The cat"
    assert channels.decode(back.ids(think.encode("<think>So x</think>The cat"))) == own
    assert think.think_end_id in there.ids(channels.encode(own))
