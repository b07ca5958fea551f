"""Examples in the draft's tokens, and their batches."""

from __future__ import annotations

from random import Random

import pytest
import torch

from semanticspec import demo
from semanticspec.distributions import Distribution
from semanticspec.text.vocabulary import Vocabulary
from semanticspec.training.align.answers import Answer
from semanticspec.training.align.examples import Example, Vocabularies, batches, collate, examples_of


@pytest.fixture(scope="module")
def vocabularies() -> Vocabularies:
    return Vocabularies(Vocabulary.load(str(demo.target_path())), Vocabulary.load(str(demo.draft_path())))


def answer(vocabularies: Vocabularies, text: str, *, nuclei: bool = True) -> Answer:
    ids = tuple(vocabularies.target.encode(text))
    return Answer(
        "p", 0, "Mia has 14 pens.", ids, True, None, tuple(((i,), (1.0,)) for i in ids) if nuclei else ()
    )


def test_a_prompt_is_the_one_that_the_draft_gets_in_use(vocabularies):
    (example,) = examples_of(vocabularies, [answer(vocabularies, "Mia has 14 pens.")], 500)
    assert list(example.prompt_ids) == vocabularies.draft.render_prompt("Mia has 14 pens.")
    assert vocabularies.draft.decode(example.answer_ids) == "Mia has 14 pens."
    assert len(example.distributions) == len(example.answer_ids)


def test_an_answer_that_does_not_fit_is_cut(vocabularies):
    whole = answer(vocabularies, "Mia has 14 pens.")
    (full,) = examples_of(vocabularies, [whole], 500)
    (cut,) = examples_of(vocabularies, [whole], len(full.prompt_ids) + 2)
    assert cut.answer_ids == full.answer_ids[:2]
    assert len(cut.distributions) == 2
    assert examples_of(vocabularies, [whole], len(full.prompt_ids)) == []


def test_batches_hold_every_example_once_and_stay_below_the_limit():
    examples = [Example((1,) * (1 + i % 7), (2,) * (1 + i % 5)) for i in range(40)]
    for random in (None, Random(0)):
        found = list(batches(examples, 24, random))
        assert sorted(map(len, (e for batch in found for e in batch))) == sorted(map(len, examples))
        assert all(max(map(len, batch)) * len(batch) <= 24 for batch in found)


def test_an_example_longer_than_the_limit_is_a_batch_of_its_own():
    long, short = Example((1,) * 50, (2,)), Example((1,), (2,))
    assert list(batches([long, short], 24, None)) == [[short], [long]]


def test_every_token_of_an_answer_is_predicted_by_the_state_before_it():
    one = Distribution.of_dense([0.0, 0.0, 0.25, 0.75])
    batch = collate([Example((5, 6), (2, 3), (one, one)), Example((7,), (3,), (one,))])
    assert batch.input_ids.tolist() == [[5, 6, 2, 3], [7, 3, 0, 0]]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch.places.tolist() == [[0, 1], [0, 2], [1, 0]]
    assert batch.token_ids.tolist() == [2, 3, 3]
    assert batch.nucleus is not None
    torch.testing.assert_close(batch.nucleus, torch.tensor([[0.25, 0.75]] * 3))


def test_without_all_distributions_a_batch_has_none():
    one = Distribution.of_dense([0.0, 1.0])
    assert collate([Example((5,), (1,), (one,)), Example((5,), (1,))]).nucleus is None
