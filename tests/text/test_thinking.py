"""Think tags: found from the tokenizer, and the one rule that splits reasoning and answer."""

from __future__ import annotations

import pytest

from semanticspec.text.segments import Segmenter
from semanticspec.text.thinking import CHANNELS, ThinkTags, find_think_tags
from semanticspec.text.vocabulary import Vocabulary
from tests.support import tokenizer_kinds as kinds
from tests.support.vocabularies import make_vocabulary

OPENS = "{{ messages[0].content + '\\n\\n<think>\\n' }}"
PLAIN = "{{ messages[0].content + '\\n\\n' }}"
CHANNEL_TEXT = "<|channel|>analysis<|message|>So x<|end|><|start|>assistant<|channel|>final<|message|>The cat"


def test_tags_are_added_tokens_or_in_the_chat_template() -> None:
    assert find_think_tags({"[THINK]", "[/THINK]"}, "").end == "[/THINK]"
    assert find_think_tags({"x"}, "before <seed:think>a</seed:think>").start == "<seed:think>"
    assert find_think_tags({"<think>", "</think>"}, "[/THINK]") == ThinkTags()
    assert find_think_tags(set(), "") == ThinkTags()
    assert kinds.channels().think_tags == CHANNELS


@pytest.mark.parametrize(
    ("text", "opened", "reasoning", "answer"),
    [
        ("four", False, "", "four"),
        ("\nfour\n", False, "", "\nfour\n"),
        ("so it is\n\n", True, "so it is", ""),
        ("<think>\nso", False, "so", ""),
        ("<think>\nso\n</think>\n\nfour", False, "so", "four"),
        ("\nso</think>\n\nfour</think>", True, "so", "four</think>"),
        ("so\n\n</think>four", False, "so", "four"),
    ],
)
def test_text_without_think_tags_is_the_answer(text: str, opened: bool, reasoning: str, answer: str) -> None:
    assert ThinkTags().split(text, opened=opened) == (reasoning, answer)


def test_channels_are_thinking_and_answer() -> None:
    assert CHANNELS.split(CHANNEL_TEXT, opened=False) == ("So x", "The cat")
    assert CHANNELS.split("<|channel|>final<|message|>The cat", opened=False) == ("", "The cat")
    assert CHANNELS.split("<|channel|>analysis<|message|>So", opened=False) == ("So", "")


def test_a_segment_ends_with_the_reasoning_in_channels() -> None:
    vocabulary = kinds.channels()
    segmenter = Segmenter.of(vocabulary)
    first, second = segmenter.split(vocabulary.encode(CHANNEL_TEXT))
    assert vocabulary.decode(first) == "<|channel|>analysis<|message|>So x<|end|>"
    assert segmenter.think_end(first) is None
    end = segmenter.think_end(second)
    assert end is not None
    assert vocabulary.decode(second[end:]) == "The cat"


def aligned(draft: Vocabulary, target: Vocabulary) -> str:
    prompt = draft.align_thinking(draft.render_prompt("ab"), target, target.render_prompt("ab"))
    return draft.decode(prompt)


def test_a_prompt_opens_the_reasoning_if_the_other_prompt_does() -> None:
    opens, plain = make_vocabulary(template=OPENS), make_vocabulary(template=PLAIN)
    assert aligned(plain, opens) == aligned(opens, opens) == "ab\n\n<think>\n"
    assert aligned(opens, plain) == aligned(plain, plain) == "ab\n\n"


def test_a_tag_of_several_tokens_is_aligned_too() -> None:
    letters = [*"abthink<>/"]
    opens = make_vocabulary(letters, added=("<eos>",), template=OPENS)
    plain = make_vocabulary(template=PLAIN)
    assert opens.think_start_id is None
    assert aligned(opens, plain) == "ab\n\n"
    text_only = make_vocabulary(letters, added=("<eos>",), template=PLAIN)
    assert aligned(text_only, make_vocabulary(template=OPENS)) == "ab\n\n<think>\n"
