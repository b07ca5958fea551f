"""Judges by name, clustering of pairwise verdicts, and the command `probe label`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from semanticspec.commands.probe import probe_app
from semanticspec.demo.exact_judge import ExactJudge
from semanticspec.errors import ConfigError
from semanticspec.training.labels.judges import (
    Clustering,
    JudgeConfig,
    Question,
    cluster,
    judge_names,
    make_judge,
    register_judge,
)
from semanticspec.training.labels.label import read_meanings
from semanticspec.training.stages import run_label
from tests.support.judging import Always, make_collection, make_nli


def one_by_one(items: Sequence[str], same: Callable[[str, str], bool]) -> list[int]:
    """Greedy clustering item by item: the reference."""
    founders: list[str] = []
    numbers: list[int] = []
    for item in items:
        for number, founder in enumerate(founders):
            if founder == item or same(founder, item):
                numbers.append(number)
                break
        else:
            numbers.append(len(founders))
            founders.append(item)
    return numbers


@given(st.lists(st.sampled_from("abcdefgh"), max_size=12), st.sets(st.tuples(st.sampled_from("abcdefgh"))))
def test_clustering_is_greedy_and_asks_no_question_twice(items: list[str], marked: set[tuple[str]]) -> None:
    """`same` is symmetric and arbitrary: neither transitive nor sensible."""
    odd = {letter for (letter,) in marked}

    def same(one: str, two: str) -> bool:
        return (ord(one) * ord(two) + (one in odd) + (two in odd)) % 3 == 0

    asked: list[frozenset[str]] = []

    def same_as(founder: str, others: Sequence[str]) -> list[bool]:
        asked.extend(frozenset((founder, other)) for other in others)
        return [same(founder, other) for other in others]

    numbers = cluster(items, same_as)
    assert numbers == one_by_one(items, same)
    assert len(asked) == len(set(asked))
    assert all(len(pair) == 2 for pair in asked)
    founders = [items[numbers.index(number)] for number in sorted(set(numbers))]
    for item, number in zip(items, numbers, strict=True):
        assert item == founders[number] or same(founders[number], item)


def test_clustering_overwrites_nothing() -> None:
    """Neighbours mean the same here; a member of the first cluster stays in it."""
    near = cluster(["1", "2", "3", "4"], lambda one, rest: [abs(int(one) - int(two)) <= 1 for two in rest])
    assert near == [0, 0, 1, 1]


def test_a_segment_that_ends_the_thinking_means_something_else() -> None:
    judge = Always()
    keys = Clustering(judge).keys("p", "c", ["a", "b</think>", "c", "d</think>", "a"])
    assert keys == [0, 1, 0, 1, 0]
    assert judge.asked[0] == Question("p", "c", "a", "c")


def test_the_exact_judge_compares_parsed_meanings() -> None:
    texts = [
        "Ana starts with 5 pens.\n\n",
        "At the start, Ana has 5 pens.\n\n",
        "Ana starts with 6 pens.",
        "?",
        "Ana starts with 5 pens.</think>",
    ]
    keys = ExactJudge().keys("", "", texts)
    assert keys[0] == keys[1] == keys[4]
    assert len(set(keys)) == 3


def test_judges_by_name(nli_folder: Path, tmp_path: Path) -> None:
    for name in judge_names():
        model = {"llm": "m"}.get(name, str(nli_folder) if "nli" in name else None)
        judge = make_judge(
            JudgeConfig(name, model, "http://localhost:1/v1" if name == "llm" else None), tmp_path
        )
        assert judge.name == name
        assert bool(judge.identity) == (name not in ("exact", "numeric"))


def test_a_registered_judge_is_made_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semanticspec.training.labels.judges._FACTORIES", {})
    register_judge("always", lambda config, folder: Clustering(Always()))  # noqa: ARG005
    assert judge_names() == ("always",)
    assert make_judge(JudgeConfig("always")).keys("", "", ["a", "b"]) == [0, 0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "numbers"}, "unknown judge 'numbers'; expected one of numeric, nli, "),
        ({"name": "llm", "model": "m"}, "needs --judge-url"),
        ({"name": "numeric", "model": "m"}, "uses no model"),
        ({"name": "nli", "url": "http://x"}, "--judge-url is for the judge llm"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        JudgeConfig(**options)


def test_label_command(tmp_path: Path, nli_folder: Path) -> None:
    collection, runner = make_collection(tmp_path / "data", num_problems=2), CliRunner()
    data = ["--data", str(collection.folder)]
    for options in (
        ["numeric"],
        ["nli", "--judge-model", str(nli_folder)],
        ["numeric+nli", "--judge-model", str(nli_folder)],
    ):
        result = runner.invoke(probe_app, ["label", *data, "--judge", *options])
        assert result.exit_code == 0, (result.output, result.exception)
        assert len(read_meanings(collection, options[0])) == 2
    no_judge = make_nli(tmp_path / "model", ("negative", "positive"))
    result = runner.invoke(probe_app, ["label", *data, "--judge", "nli", "--judge-model", str(no_judge)])
    assert isinstance(result.exception, ConfigError)
    run_label(collection, "exact")
    assert len(read_meanings(collection, "exact")) == 2
