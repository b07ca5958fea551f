"""Stop strings and think tags in streamed text: the result does not depend on how the text is divided."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from semanticspec.text.filters import StopStringFilter, TextPiece, ThinkSplitter
from semanticspec.text.thinking import CHANNELS, ThinkTags

TEXT = st.text("ab</think>\n ", max_size=60) | st.lists(
    st.sampled_from(["<think>", "</think>", "\n", "\n\n", "a", "<", "</th", " ", "ab"]), max_size=14
).map("".join)
CUTS = st.lists(st.integers(0, 60), max_size=12)


def pieces_of(text: str, cuts: list[int]) -> list[TextPiece]:
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    authors = ("draft", "target")
    return [TextPiece(authors[n % 2], text[a:b]) for n, (a, b) in enumerate(pairwise(places))]


def reference_stop(text: str, stops: list[str]) -> str:
    """Scans character by character: the first stop string that is complete ends the text before it."""
    for end in range(len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(map(len, found))]
    return text


def stopped(text: str, cuts: list[int], stops: list[str]) -> tuple[str, bool]:
    finder = StopStringFilter(stops)
    out = [piece for part in pieces_of(text, cuts) for piece in finder.push(part)] + finder.close()
    return "".join(piece.text for piece in out), finder.found


@given(TEXT, CUTS, st.lists(st.text("ab\n<", min_size=1, max_size=4), max_size=3))
def test_stop_strings_cut_the_same_however_the_text_is_divided(text, cuts, stops):
    expected = reference_stop(text, stops)
    assert stopped(text, cuts, stops) == (expected, any(stop in text for stop in stops))


def test_only_a_possible_start_of_a_stop_string_is_held_back():
    finder = StopStringFilter(["stop!"])
    assert [piece.text for piece in finder.push(TextPiece("draft", "continue. st"))] == ["continue. "]
    assert finder.push(TextPiece("target", "op")) == []
    out = finder.push(TextPiece("target", ", no"))
    assert [(piece.author, piece.text) for piece in out] == [
        ("draft", "st"),
        ("target", "op"),
        ("target", ", no"),
    ]
    assert not finder.found


def split(
    text: str,
    cuts: list[int],
    *,
    inside: bool,
    tags: ThinkTags = ThinkTags(),  # noqa: B008
) -> tuple[str, str, bool]:
    splitter = ThinkSplitter(tags, starts_in_thinking=inside)
    out = [piece for part in pieces_of(text, cuts) for piece in splitter.push(part)] + splitter.close()
    assert all(piece.text for piece in out)
    channels = [piece.channel for piece in out]
    assert channels == sorted(channels, reverse=True)  # reasoning first, then content
    joined = {name: "".join(p.text for p in out if p.channel == name) for name in ("reasoning", "content")}
    return joined["reasoning"], joined["content"], splitter.has_reasoning


@given(TEXT, CUTS, st.booleans())
def test_reasoning_is_split_the_same_however_the_text_is_divided(text, cuts, inside):
    assert split(text, cuts, inside=inside) == split(text, [], inside=inside)


@pytest.mark.parametrize(
    ("text", "inside", "reasoning", "content"),
    [
        ("\nso\n\nit is\n</think>\n\nfour", True, "so\n\nit is", "four"),
        ("<think>\nso\n</think>\n\nfour", False, "so", "four"),
        ("\n <think>so</think>four</think>", False, "so", "four</think>"),
        ("four", False, "", "four"),
        ("\nfour\n", False, "", "\nfour\n"),
        ("<thin", False, "", "<thin"),
        ("so it\n\n", True, "so it", ""),
        ("so </thin", True, "so </thin", ""),
        ("</think>", True, "", ""),
        ("a <think> b", False, "", "a <think> b"),
    ],
)
def test_reasoning_and_content_of_a_text(text, inside, reasoning, content):
    for cuts in ([], list(range(60))):
        assert split(text, cuts, inside=inside)[:2] == (reasoning, content)


def test_reasoning_is_returned_before_it_ends():
    splitter = ThinkSplitter(ThinkTags(), starts_in_thinking=True)
    assert [p.text for p in splitter.push(TextPiece("target", "one\n\n"))] == ["one"]
    assert "".join(p.text for p in splitter.push(TextPiece("draft", "two <"))) == "\n\ntwo "


@pytest.mark.parametrize("tags", [ThinkTags(), CHANNELS])
@given(st.data(), st.booleans())
def test_streamed_and_whole_texts_are_split_alike(tags, data, inside):
    """The library splits a whole text, the server a stream. Neither side needs a text to be well-formed."""
    parts = [tags.start, tags.end, tags.before_end, "\n", "\n\n", "a", "<", " ", "ab"]
    text = "".join(data.draw(st.lists(st.sampled_from(parts), max_size=10)))
    begins = text.lstrip().startswith((tags.start, tags.end))
    assume(inside or begins or tags.end not in text)  # a stream cannot know that a lone end tag will follow
    reasoning, content = split(text, list(range(60)), inside=inside, tags=tags)[:2]
    assert (reasoning, content) == tags.split(text, opened=inside)
