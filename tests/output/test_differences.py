"""What differs between saved settings and new ones is named with both values."""

from __future__ import annotations

from semanticspec.output.differences import as_json, differences, listed


def test_values_that_both_have_are_compared() -> None:
    saved = {"config": {"seed": 0, "names": ["a"]}, "old": 1}
    new = as_json({"config": {"seed": 1, "names": ("a",)}, "new": 2})
    assert differences(saved, new) == ["config.seed is 0 in the folder and 1 in this run"]
    assert differences(saved, saved) == []
    assert differences({"a": 1}, {"a": 2}, "semantic: ") == [
        "semantic: a is 1 in the folder and 2 in this run"
    ]


def test_long_values_and_many_differences_are_shortened() -> None:
    (found,) = differences({"a": "x" * 99}, {"a": ""})
    assert len(found) < 110
    assert listed(["a", "b"]) == "a; b"
    assert listed(list("abcdef")) == "a; b; c; d; and 2 more"
