"""Pairs with different tokenizers: the output is the text that the models wrote."""

from __future__ import annotations

import pytest

from semanticspec import DecodingConfig, RuleConfig, generate
from semanticspec.decoding.pair import Model, Pair
from semanticspec.engines.scripted import ScriptedEngine
from semanticspec.errors import ConfigError
from semanticspec.records import Sampling
from semanticspec.text.vocabulary import Vocabulary
from tests.support import tokenizer_kinds as kinds
from tests.support.vocabularies import make_vocabulary

PROMPT = "a"
TEXT = "The cat sat on the mat 😀.\n\nSo 12345 + 中文 = 👩‍👩‍👧\n\n  привет, नमस्ते\n\nThe end"
REPLACEMENT = "\ufffd"


class Author:
    """A scripted model that writes one text, in its own tokens, whatever tokens the text so far came in.

    Attributes:
        seen: the texts that it was asked to continue, as it saw them.
    """

    def __init__(self, vocabulary: Vocabulary, text: str) -> None:
        self.vocabulary, self.text = vocabulary, text
        self.num_prompt = len(vocabulary.render_prompt(PROMPT))
        self.size = len(vocabulary.tokenizer)
        self.seen: list[str] = []

    def model(self) -> Model:
        return Model(ScriptedEngine(self.next_probabilities, self.size), self.vocabulary)

    def next_probabilities(self, context: tuple[int, ...]) -> list[float]:
        output = list(context[self.num_prompt :])
        self.seen.append(self.vocabulary.decode(output))
        row = [0.0] * self.size
        row[self._next_id(output)] = 1.0
        return row

    def _next_id(self, output: list[int]) -> int:
        for num_held in range(4):
            written = self.vocabulary.decode(output[: len(output) - num_held])
            if self.text.startswith(written):
                rest = [*self.vocabulary.encode(self.text[len(written) :]), self.vocabulary.end_id]
                return rest[num_held]
        return self.vocabulary.end_id


def answer(rule: str, target: Author, draft: Author, **changes):
    config = DecodingConfig(
        rule=RuleConfig(name=rule),
        sampling=Sampling(temperature=0),
        max_new_tokens=400,
        speculate_answer=True,
        **changes,
    )
    return generate(Pair(target.model(), draft.model()), PROMPT, config)


PAIRS = [
    (kinds.sentencepiece, kinds.byte_level),
    (kinds.byte_level, kinds.sentencepiece),
    (kinds.byte_level, kinds.gemma_like),
    (kinds.unigram, kinds.byte_level),
]


@pytest.mark.parametrize(("target", "draft"), PAIRS)
def test_the_draft_sees_what_the_target_wrote(target, draft):
    writer, drafter = Author(target(), TEXT), Author(draft(), TEXT)
    result = answer("never", writer, drafter)
    assert result.text == TEXT
    complete = [text for text in drafter.seen if REPLACEMENT not in text]
    assert len(complete) > 10
    assert all(TEXT.startswith(text) for text in complete)
    assert "The cat sat on the mat 😀.\n\n" in complete


@pytest.mark.parametrize("max_segment_tokens", [1, 2, 3, 5, 8, 13, 500])
@pytest.mark.parametrize(("target", "draft"), PAIRS)
def test_drafts_cut_anywhere_add_up_to_the_text(target, draft, max_segment_tokens: int):
    result = answer(
        "always", Author(target(), TEXT), Author(draft(), TEXT), max_segment_tokens=max_segment_tokens
    )
    assert result.text == TEXT
    assert REPLACEMENT not in "".join(segment.text for segment in result.segments)
    assert "".join(segment.text for segment in result.segments if segment.accepted is not False) == TEXT
    assert result.finish_reason == "stop"


@pytest.mark.parametrize("overlap", [False, True])
def test_most_of_an_agreed_text_is_the_drafts(overlap: bool):
    target, draft = Author(kinds.byte_level(), TEXT), Author(kinds.sentencepiece(), TEXT)
    result = answer("always", target, draft, overlap=overlap)
    assert result.text == TEXT
    assert result.stats.draft_token_share == 1


def test_segment_texts_add_up_where_ids_are_exchanged():
    vocabulary = kinds.byte_level()
    result = answer("always", Author(vocabulary, TEXT), Author(vocabulary, TEXT), max_segment_tokens=3)
    assert result.text == TEXT
    assert "".join(segment.text for segment in result.segments if segment.accepted is not False) == TEXT


def test_a_rule_that_needs_the_same_tokens_names_those_that_differ():
    target = Author(make_vocabulary(), "ab")
    draft = Author(make_vocabulary(["b", "a", "c", "d"]), "ab")
    with pytest.raises(ConfigError, match=r"other ids for 2 tokens: 'a' \(0 in the target, 1 in the draft\)"):
        answer("token", target, draft)


def test_padded_vocabularies_are_accepted_by_rules_that_need_the_same_tokens():
    target, draft = Author(make_vocabulary(), "ab\n\ncd"), Author(make_vocabulary(padding=5), "ab\n\ncd")
    result = answer("token", target, draft)
    assert result.text == "ab\n\ncd"
    assert result.stats.draft_token_share > 0.5


def test_reasoning_that_one_template_opens_is_open_for_both():
    opens = make_vocabulary(template="{{ messages[0].content + '\\n\\n<think>\\n' }}")
    plain = make_vocabulary(template="{{ messages[0].content + '\\n\\n' }}")
    for target, draft in ((opens, plain), (plain, opens)):
        contexts: list[tuple[int, ...]] = []

        def ends(context: tuple[int, ...], contexts: list[tuple[int, ...]] = contexts) -> list[float]:
            contexts.append(context)
            return [float(i == 6) for i in range(9)]

        pair = Pair(Model(ScriptedEngine(ends, 9), target), Model(ScriptedEngine(ends, 9), draft))
        generate(pair, "a", DecodingConfig(rule=RuleConfig(name="always")))
        prompts = {target.decode(context) for context in contexts}
        assert prompts == {target.decode(target.render_prompt("a"))}


def test_without_think_tags_all_text_is_the_answer():
    """A base model without a chat template, cut off by the limit."""
    vocabulary = kinds.byte_level()
    result = answer("always", Author(vocabulary, TEXT), Author(vocabulary, TEXT))
    assert (result.reasoning, result.answer) == ("", TEXT)


def test_channels_are_split_into_reasoning_and_answer():
    text = (
        "<|channel|>analysis<|message|>So x.\n\nThe cat<|end|><|start|>assistant<|channel|>final<|message|>On"
    )
    vocabulary = kinds.channels()
    result = answer("always", Author(vocabulary, text), Author(vocabulary, text))
    assert (result.reasoning, result.answer) == ("So x.\n\nThe cat", "On")
    assert result.finish_reason == "stop"
