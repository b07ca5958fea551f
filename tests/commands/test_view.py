"""What a request looks like in a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from semanticspec.commands import view
from semanticspec.commands.view import RequestView, closing_line
from semanticspec.records import Result, Segment, SegmentDecided, SpeculationEnded, Stats, TextWritten


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """The output of a terminal with colors."""
    out = io.StringIO()
    monkeypatch.setattr(
        view,
        "Console",
        lambda **options: Console(file=out, force_terminal=True, color_system="standard", **options),
    )
    return out


def test_a_rejected_segment_is_struck_through_except_for_its_kept_prefix(shown: io.StringIO) -> None:
    request = RequestView(stream=True)
    request.show(SegmentDecided(0, Segment("draft", "one two three", 3, accepted=False), 1))
    request.show(TextWritten("draft", "one", (1,)))
    request.show(TextWritten("target", " four", (2,)))
    request.show(SegmentDecided(1, Segment("draft", "five", 1, accepted=False), 0))
    parts = shown.getvalue()
    assert "\x1b[32mone\x1b[0m" in parts
    assert "\x1b[2;9;31m two three\x1b[0m" in parts
    assert "\x1b[2;9;31mfive\x1b[0m" in parts
    assert parts.index("two three") < parts.index("four")


@pytest.mark.parametrize(("reason", "noun"), [("token", "proposals"), ("semantic", "segments")])
def test_the_closing_line_names_what_was_verified(reason: str, noun: str) -> None:
    segments = tuple(Segment("draft", "a", 1, accepted=accepted, reason=reason) for accepted in (True, False))
    stats = Stats(num_tokens=2, draft_tokens=1, segments_accepted=1, segments_rejected=1)
    assert f"1 of 2 {noun} accepted" in closing_line(Result("a", (1,), segments, stats, "stop", False))


def test_the_closing_line_says_where_speculation_ended() -> None:
    ended = SpeculationEnded("the output repeats itself", 140)
    result = Result("a", (1,), (), Stats(num_tokens=200), "length", True, speculation_ended=ended)
    assert "the output repeats itself: the target alone after 140 tokens" in closing_line(result)
