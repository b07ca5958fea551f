"""Labels counted from meanings."""

from __future__ import annotations

import pytest

from semanticspec.training.labels.label import count_labels, paired_shares
from tests.support.collecting import (
    segment,
)


def test_labels_by_hand() -> None:
    """Target: A A A B of n = 4 (A in two wordings); draft: A A B C C of n = 5."""
    segments = [
        segment("target", "A", 2),
        segment("target", "a", 1),
        segment("target", "B", 1),
        segment("draft", "A", 2),
        segment("draft", "B", 1),
        segment("draft", "C", 2),
    ]
    meanings = [0, 0, 1, 0, 1, 2]
    third = pytest.approx
    assert count_labels(segments, meanings, "target", "unbiased") == third([2 / 3, 2 / 3, 0, 0.75, 0.25, 0])
    assert count_labels(segments, meanings, "draft", "unbiased") == [None, None, None, 0.25, 0.0, 0.25]
    assert count_labels(segments, meanings, "target", "paper") == [0.75, 0.75, 0.25, None, None, None]
    assert count_labels(segments, meanings, "draft", "paper") == [None, None, None, 0.4, 0.2, 0.4]


def test_labels_count_within_a_context() -> None:
    segments = [segment("target", "A", 2), segment("target", "A", 2, "1"), segment("draft", "A", 1, "1")]
    assert count_labels(segments, [0, 0, 0], "target", "unbiased") == [1.0, 1.0, 1.0]
    assert count_labels([segment("target", "A")], [0], "target", "unbiased") == [None]


def test_halves() -> None:
    assert paired_shares([0, 0, 1, 0], 0, [0, 1, 2, 3]) == (1.0, 0.5)
