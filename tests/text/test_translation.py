"""Translation between vocabularies: by ids, by name, by role, or as text."""

from __future__ import annotations

import pytest
import torch

from semanticspec.text.translation import Translation, describe_difference
from tests.support.distributions import dense, sparse
from tests.support.vocabularies import EOS, THINK, THINK_END, A, B, make_vocabulary

ORDER = ("<think>", "</think>", "<tool>", "<eos>")  # added tokens under other ids, and one more


def test_added_tokens_are_mapped_by_name_and_ends_by_role():
    vocabulary, other = make_vocabulary(), make_vocabulary(added=ORDER)
    there, back = Translation(vocabulary, other), Translation(other, vocabulary)
    assert there.by_ids
    assert there.ids([A, THINK, B, THINK_END, EOS]) == [A, 6, B, 7, 9]
    assert back.unmapped == {8}
    assert back.ids([A, 8, B]) == [A]
    assert back.ids([A, 7, 9]) == [A, THINK_END, EOS]


def test_columns_of_distributions_follow_their_tokens():
    rows = torch.arange(1.0, 11.0)[None] / 55
    translation = Translation(make_vocabulary(added=ORDER), make_vocabulary())
    moved = dense(translation.distributions(sparse(rows)), 10)
    assert moved[0, EOS] == rows[0, 9]
    assert moved[0, THINK] == rows[0, 6]
    assert moved[0, A] == rows[0, A]
    assert float(moved.sum()) == pytest.approx(1 - 9 / 55), "the unmapped token must lose its probability"


def test_different_base_tokens_are_translated_as_text():
    vocabulary, other = make_vocabulary(), make_vocabulary(["d", "c", "b", "a"])
    there = Translation(vocabulary, other)
    assert not there.by_ids
    ids = there.ids([*vocabulary.encode("abd\n\n"), EOS])
    assert other.decode(ids) == "abd\n\n"
    assert ids[-1] == other.end_id


def test_a_mapped_id_beyond_the_sources_width_widens_the_distributions():
    """The sink's `</think>` has a larger id than any id of the source's rows."""
    source = make_vocabulary(added=("<eos>", "</think>"))
    sink = make_vocabulary(added=("<eos>", "<x>", "<y>", "<z>", "</think>"))
    moved = dense(Translation(source, sink).distributions(sparse(torch.eye(8))), sink.think_end_id + 1)
    assert float(moved[source.think_end_id, sink.think_end_id]) == 1
    assert float(moved.sum()) == 8


def test_ids_without_a_token_have_no_counterpart():
    vocabulary = make_vocabulary()
    padded = torch.full((1, 12), 1 / 12)
    moved = dense(Translation(vocabulary, make_vocabulary()).distributions(sparse(padded)), 12)
    assert float(moved.sum()) == pytest.approx(9 / 12)
    assert Translation(vocabulary, make_vocabulary()).ids([0, 10, 1]) == [0]


def test_text_ends_at_an_end_of_text_that_the_sink_reads_out_of_it():
    source = make_vocabulary(["a", "b", "<", "s", "/", ">"])
    sink = make_vocabulary(["a", "b", "c"], added=("<eos>", "</s>"), template="{{ messages[0].content }}</s>")
    ids = Translation(source, sink).ids(source.encode("a</s>b"))
    assert ids[-1] in sink.end_ids
    assert sink.decode(ids) == "a"


def test_padded_vocabularies_exchange_ids():
    """GGUF files pad their tokenizer to the width of the model's rows."""
    padded, plain = make_vocabulary(padding=3), make_vocabulary()
    there, back = Translation(padded, plain), Translation(plain, padded)
    assert there.by_ids
    assert back.by_ids
    assert there.unmapped == {6, 7, 8}
    assert there.ids([A, padded.think_end_id, 7, B]) == [A, THINK_END]
    assert back.ids([A, THINK_END, EOS]) == [A, padded.think_end_id, padded.end_id]
    moved = dense(there.distributions(sparse(torch.full((1, 12), 1 / 12))), 12)
    assert float(moved.sum()) == pytest.approx(9 / 12)


def test_a_context_keeps_tokens_around_one_without_a_counterpart():
    vocabulary, other = make_vocabulary(), make_vocabulary(["a", "b", "c", "d", "<", "x", ">"])
    assert not Translation(vocabulary, other).by_ids
    source = make_vocabulary(["a", "b", "c", "d", "<", "x", ">"], added=("<eos>", "<x>"))
    sink = make_vocabulary(["a", "b", "c", "d", "<", "x", ">"], added=("<eos>",))
    there = Translation(source, sink)
    ids = [*source.encode("ab"), source.tokenizer.convert_tokens_to_ids("<x>"), *source.encode("c")]
    assert there.ids(ids) == source.encode("ab")
    assert sink.decode(there.context_ids(ids)) == "ab<x>c"


def test_differences_name_the_tokens():
    ours = make_vocabulary()
    assert describe_difference(ours, make_vocabulary(["b", "a", "c", "d"])) == (
        "other ids for 2 tokens: 'a' (0 in the target, 1 in the draft), 'b' (1 in the target, 0 in the draft)"
    )
    other = describe_difference(ours, make_vocabulary(["a", "b", "c", "é"]))
    assert "tokens of the target only: 1, such as 'd'" in other
    assert "tokens of the draft only: 1, such as 'é'" in other
    assert "merges" in describe_difference(ours, make_vocabulary())
