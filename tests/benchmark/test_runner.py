"""The runner: turns, failures, caches and concurrent requests."""

from __future__ import annotations

import asyncio

import pytest

from semanticspec.benchmark.methods import make_method
from semanticspec.benchmark.rows import Row
from semanticspec.benchmark.runner import RunContext, run, schedule
from semanticspec.benchmark.tasks import BenchProblem
from semanticspec.commands.demo_registration import DemoGrader
from semanticspec.config import DecodingConfig
from semanticspec.decoding.pair import Pair
from semanticspec.errors import BenchmarkError
from semanticspec.records import Result
from tests.support.benchmarks import Fake


def test_methods_take_turns_problem_by_problem_and_sample_by_sample():
    problems = [BenchProblem(name, name, "1") for name in "pq"]
    methods = [Fake(name, {}) for name in ("one", "two", "three")]
    blocks = list(schedule(problems, methods, 2))
    order = [
        (problem.problem_id, sample, block.method.name)
        for block in blocks
        for problem, sample in block.requests
    ]
    assert order[:6] == [
        ("p", 0, "one"),
        ("p", 0, "two"),
        ("p", 0, "three"),
        ("p", 1, "two"),
        ("p", 1, "three"),
        ("p", 1, "one"),
    ]
    assert len(order) == 12
    assert order[6][2] == "three"


def test_a_failed_request_is_a_row_and_three_in_a_row_end_the_run(pair):
    problems = [BenchProblem(str(i), f"problem {i}", "1") for i in range(6)]
    good = Fake("good", {problem.prompt: "\\boxed{1}" for problem in problems})
    some = Fake("some", {problem.prompt: "\\boxed{2}" for problem in problems[::2]})
    context = RunContext("demo", pair, DemoGrader())
    rows = list(run(context, problems, [good, some]))
    assert len(rows) == 12
    failed = [row for row in rows if row.failed]
    assert [row.problem_id for row in failed] == ["1", "3", "5"]
    assert failed[0].note == "PromptError: too long"
    assert all(row.right for row in rows if row.method == "good")
    assert not any(row.right for row in rows if row.method == "some")
    seeds = {(row.problem_id, row.seed) for row in rows}
    assert len(seeds) == 6
    none = Fake("none", {})
    kept: list[Row] = []
    with pytest.raises(
        BenchmarkError, match="none failed 3 times in a row, last with: PromptError: too long"
    ):
        kept.extend(run(context, problems, [good, none]))
    assert len([row for row in kept if row.method == "none"]) == 3


def test_a_request_starts_with_empty_caches(pair):
    engine = pair.target.engine
    seen = []

    class Looks(Fake):
        async def solve(self, prompt: str, seed: int) -> Result:
            seen.append((len(engine._prefix_cache), len(pair.draft.engine._prefix_cache)))
            return await make_method("always", pair, DecodingConfig(max_new_tokens=8)).solve(prompt, seed)

    problems = [BenchProblem("p", "Mia has 14 pens. How many pens does Mia have?", "14")]
    list(run(RunContext("demo", pair, DemoGrader()), problems, [Looks("a", {}), Looks("b", {})]))
    assert seen == [(0, 0), (0, 0)]
    assert len(engine._prefix_cache) > 0


async def test_concurrent_requests_come_in_blocks_and_no_more_than_so_many(pair: Pair) -> None:
    problems = [BenchProblem(str(i), f"problem {i}", "1") for i in range(11)]
    methods = [Fake(name, {}) for name in ("one", "two")]
    blocks = list(schedule(problems, methods, 1, concurrency=2))
    assert [(block.number, block.method.name, len(block.requests)) for block in blocks] == [
        (0, "one", 8),
        (0, "two", 8),
        (1, "two", 3),
        (1, "one", 3),
    ]
    running, most = 0, 0

    class Waits(Fake):
        async def solve(self, prompt: str, seed: int) -> Result:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.05)
            running -= 1
            return await super().solve(prompt, seed)

    waits = Waits("target", {problem.prompt: "\\boxed{1}" for problem in problems})
    context = RunContext("demo", pair, DemoGrader())
    rows = await asyncio.to_thread(lambda: list(run(context, problems, [waits], concurrency=2)))
    assert most == 2
    assert [row.problem_id for row in rows] == [problem.problem_id for problem in problems]
    assert all(row.right and row.wall_s >= 0.05 for row in rows)
    assert {row.block for row in rows} == {0, 1}
    first = [row.share_s for row in rows if row.block == 0]
    assert len(set(first)) == 1
    assert 0.2 <= sum(first) < 0.4  # eight of 0.05 s, two at a time
