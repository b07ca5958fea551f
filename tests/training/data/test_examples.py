"""Rows to train and judge a probe on."""

from __future__ import annotations

import pytest

from semanticspec.training.data.examples import split_of
from tests.support.collecting import (
    synthetic,
)


def test_split_is_by_problem() -> None:
    names = [f"problem {i}" for i in range(3000)]
    splits = [split_of(name) for name in names]
    assert splits == [split_of(name) for name in names]
    assert [splits.count(split) / 3000 for split in ("train", "validation", "test")] == pytest.approx(
        [0.6, 0.2, 0.2], abs=0.03
    )
    examples = synthetic(300)
    parts = [set(examples.of_split(split).problem_ids) for split in ("train", "validation", "test")]
    assert all(parts)
    assert not parts[0] & parts[1]
    assert not parts[0] & parts[2]
    assert not parts[1] & parts[2]
