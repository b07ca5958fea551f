"""Prompts are rendered in the model's own chat template."""

from __future__ import annotations

import pytest

from semanticspec.errors import PromptError
from semanticspec.text.chat import PlainText
from tests.support.vocabularies import make_vocabulary

TEMPLATE = "{% for m in messages %}{{ m.content }}{% endfor %}{{ '\\n\\n<think>' }}"


def test_the_chat_template_is_applied_and_may_open_thinking():
    vocabulary = make_vocabulary(template=TEMPLATE)
    ids = vocabulary.render_prompt("ab")
    assert vocabulary.decode(ids) == "ab\n\n<think>"
    assert vocabulary.opens_thinking(ids)
    assert vocabulary.render_prompt([{"role": "user", "content": "ab"}]) == ids


def test_without_a_template_messages_are_joined_by_blank_lines():
    vocabulary = make_vocabulary()
    messages = [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}]
    assert vocabulary.decode(vocabulary.render_prompt(messages)) == "a\n\nb"
    assert not vocabulary.opens_thinking(vocabulary.render_prompt("ab"))


def test_plain_text_is_continued_as_it_is():
    vocabulary = make_vocabulary(template=TEMPLATE)
    assert vocabulary.decode(vocabulary.render_prompt(PlainText("ab"))) == "ab"


@pytest.mark.parametrize("prompt", [" \n", PlainText(" "), [], [{"role": "user", "content": ""}]])
def test_empty_prompts_are_refused(prompt):
    with pytest.raises(PromptError, match="empty"):
        make_vocabulary().render_prompt(prompt)


def test_messages_that_the_template_refuses_are_an_error():
    with pytest.raises(PromptError, match="refuses these messages: no system role"):
        make_vocabulary(template="{{ raise_exception('no system role') }}").render_prompt("ab")
