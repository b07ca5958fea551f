"""Contexts: from traces that the models write, and from given ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from semanticspec.decoding.generate import decode
from semanticspec.errors import ConfigError
from semanticspec.problems.sources import ProblemText
from semanticspec.records import TextWritten
from semanticspec.training.data import contexts
from tests.support.collecting import (
    CONFIG,
    PROBLEMS,
    run_collect,
)


def test_a_trace_is_written_only_if_contexts_come_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def spy(pair: Any, prompt: Any, config: Any) -> Any:
        written.append("loop" if config.speculate else "target")
        return decode(pair, prompt, config)

    monkeypatch.setattr(contexts, "decode", spy)
    for name, config, expected in (
        ("both", CONFIG, {"loop", "target"}),
        ("one context", replace(CONFIG, max_contexts=1), {"loop"}),
        ("no loop", replace(CONFIG, loop_share=0), {"target"}),
    ):
        written.clear()
        shards = run_collect(tmp_path / name, config=config)
        assert set(written) == expected
        assert {context.origin for shard in shards for context in shard.contexts} == expected
    written.clear()
    problems = [ProblemText(f"number {i}", "ab"[i % 2]) for i in range(40)]
    shards = run_collect(tmp_path / "one trace", problems, replace(CONFIG, one_trace=True, max_contexts=2))
    each = [{context.origin for context in shard.contexts} for shard in shards]
    assert all(len(found) == 1 for found in each)
    assert 10 <= each.count({"loop"}) <= 30
    assert len(written) == len(problems)


def test_a_trace_ends_at_its_last_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest context has exactly as many segments as were written; nothing is decoded for an empty one."""
    written: list[int] = []

    async def spy(pair: Any, prompt: Any, config: Any) -> Any:
        written.append(0)
        async for event in decode(pair, prompt, config):
            written[-1] += isinstance(event, TextWritten) and "\n\n" in event.text
            yield event

    monkeypatch.setattr(contexts, "decode", spy)
    config = replace(CONFIG, one_trace=True, max_contexts=1, max_context_segments=3)
    problems = [ProblemText(f"number {i}", "a") for i in range(30)]
    shards = run_collect(tmp_path, problems, config, concurrency=1)
    lengths = [
        shard.contexts[0].text.count("\n\n") for shard in sorted(shards, key=lambda s: problem_number(s))
    ]
    assert {0, 1, 2} == set(lengths)  # traces have three segments or more
    assert written == [length for length in lengths if length]


def problem_number(shard: Any) -> int:
    return int(shard.problem_id.split()[-1])


def test_the_places_of_contexts_are_uniform_among_those_that_a_trace_has(tmp_path: Path) -> None:
    """Also in traces that are shorter than the limit."""
    config = replace(
        CONFIG, one_trace=True, max_contexts=1, max_context_segments=9, loop_share=0, num_samples=2
    )
    problems = [ProblemText(f"number {i}", "a", "a\n\nb\n\nab\n\n</think>") for i in range(300)]
    lengths = [shard.contexts[0].text.count("\n\n") for shard in run_collect(tmp_path, problems, config)]
    for length in range(4):
        assert 50 <= lengths.count(length) <= 100  # 75 expected; standard deviation 7.5
    more = replace(config, max_contexts=3)
    for shard in run_collect(tmp_path / "more", problems[:5], more):
        assert len({context.text for context in shard.contexts}) == 3


def test_without_one_trace_the_limit_only_cuts_traces(tmp_path: Path) -> None:
    shards = run_collect(tmp_path, config=replace(CONFIG, max_context_segments=3))
    lengths = {context.text.count("\n\n") for shard in shards for context in shard.contexts}
    assert lengths == {0, 1, 2}
    assert {context.origin for shard in shards for context in shard.contexts} == {"loop", "target"}


def test_given_traces_are_split_at_their_boundaries(tmp_path: Path) -> None:
    problem = ProblemText("given", "a", "a\n\nb\n\nab\n\n</think>a")
    (shard,) = run_collect(tmp_path, [problem], replace(CONFIG, loop_share=0))
    assert [(context.origin, context.text) for context in shard.contexts] == [
        ("given", text) for text in ("", "a\n\n", "a\n\nb\n\n", "a\n\nb\n\nab\n\n")
    ]
    (shard,) = run_collect(tmp_path / "short", [problem], replace(CONFIG, loop_share=0, max_trace_tokens=4))
    assert [context.text for context in shard.contexts] == ["", "a\n\n"]
    (shard,) = run_collect(tmp_path / "mixed", [problem], replace(CONFIG, max_contexts=4))
    assert {context.origin for context in shard.contexts} <= {"loop", "given"}
    assert sum(context.origin == "loop" for context in shard.contexts) >= len(shard.contexts) / 2


def test_a_trace_without_a_boundary_is_refused_before_any_work(tmp_path: Path) -> None:
    problems = [PROBLEMS[0], ProblemText("solid", "a", "ababab\n\n")]
    with pytest.raises(ConfigError, match="'solid' has no blank line inside"):
        run_collect(tmp_path / "data", problems)
    assert not (tmp_path / "data").exists()
