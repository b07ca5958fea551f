"""Runs methods on the same problems, in turns, so that a drift of the machine hits all alike."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from semanticspec.benchmark.grading import Grader
from semanticspec.benchmark.methods import LoopMethod, Method, make_method, random_control, split_name
from semanticspec.benchmark.rows import FAILED, Row, figures_of
from semanticspec.benchmark.tasks import BenchProblem
from semanticspec.config import DecodingConfig, RuleConfig
from semanticspec.decoding.pair import Pair
from semanticspec.engines.base import Forgetting, derived_seed
from semanticspec.errors import BenchmarkError, SemanticSpecError, first_line
from semanticspec.records import Result

T = TypeVar("T")
MOST_FAILURES = 3
"""So many failed requests of one method in a row end the run: it is the method, not the problem."""

_WARM_UP_TOKENS = 16
_ROUNDS = 4
"""A block of requests at once holds so many times as many as run at a time: at its end fewer do."""


@dataclass(frozen=True, slots=True)
class Block:
    """Samples of problems, to be solved by one method before the next has its turn.

    Attributes:
        number: from 0, the same for all methods.
        cells: problems and numbers of samples.
    """

    number: int
    method: Method
    cells: tuple[tuple[BenchProblem, int], ...]


@dataclass(frozen=True, slots=True)
class Setting:
    """What all requests share. `seed` fixes those of the requests, the same for all methods."""

    task: str
    pair: Pair
    grader: Grader
    seed: int = 0

    def seed_of(self, problem_id: str, sample: int) -> int:
        return derived_seed(self.seed, self.task, problem_id, sample)


def schedule(
    problems: Sequence[BenchProblem], methods: Sequence[Method], samples: int, concurrency: int = 1
) -> Iterator[Block]:
    """Every request, block by block (one by one, unless several run at once); who goes first changes from one to the
    next."""
    cells = [(problem, sample) for problem in problems for sample in range(samples)]
    size = 1 if concurrency == 1 else _ROUNDS * concurrency
    for number, start in enumerate(range(0, len(cells), size)):
        first = number % len(methods)
        for method in (*methods[first:], *methods[:first]):
            yield Block(number, method, tuple(cells[start : start + size]))


def run(
    setting: Setting,
    problems: Sequence[BenchProblem],
    methods: Sequence[Method],
    *,
    samples: int = 1,
    concurrency: int = 1,
    done: Set[tuple[str, str, int, str]] = frozenset(),
) -> Iterator[Row]:
    """Solves and grades every request that is not done yet.

    Args:
        concurrency: how many requests of a method run at once. Above 1 rows come a block at a time.
        done: keys of rows that are there, see `Row.key`.

    Raises:
        BenchmarkError: a method failed several times in a row.
    """
    failures = {method.name: 0 for method in methods}
    with asyncio.Runner() as runner:
        warm = False
        for block in schedule(problems, methods, samples, concurrency):
            name = block.method.name
            left = [
                cell for cell in block.cells if (setting.task, cell[0].problem_id, cell[1], name) not in done
            ]
            if not left:
                continue
            if not warm:
                runner.run(_warm_up(setting.pair, left[0][0].prompt))
                warm = True
            attempts, wall_s = runner.run(_solved(setting, block.method, left, concurrency))
            for (problem, sample), attempt in zip(left, attempts, strict=True):
                row = _graded(setting, name, problem, sample, attempt)
                failures[name] = failures[name] + 1 if row.failed else 0
                yield replace(row, block=block.number, share_s=wall_s / len(left))
            if failures[name] >= MOST_FAILURES:
                raise BenchmarkError(
                    f"{name} failed {MOST_FAILURES} times in a row, last: {row.note}; mend it or leave the method out "
                    "(rows are kept)"
                )


def pilot(
    setting: Setting,
    config: DecodingConfig,
    problems: Sequence[BenchProblem],
    on_solved: Callable[[], None] = lambda: None,
) -> RuleConfig:
    """The random control of the semantic rule as `config` has it, from problems that the comparison does not use."""
    semantic = make_method("semantic", setting.pair, config)

    async def solve_all() -> list[Result]:
        results = []
        for problem in problems:
            results.append(await semantic.solve(problem.prompt, setting.seed_of(problem.problem_id, 0)))
            on_solved()
        return results

    return random_control(asyncio.run(solve_all()), config.rule)


def control(name: str, pair: Pair, config: DecodingConfig, rule: RuleConfig) -> Method:
    """The random control as a method."""
    assert split_name(name)[0] == "random"
    return LoopMethod(name, pair, replace(config, rule=rule))


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What came of one request; no result if the method failed, and then a note."""

    result: Result | None
    note: str
    wall_s: float
    started_at: str


async def _solved(
    setting: Setting, method: Method, cells: Sequence[tuple[BenchProblem, int]], concurrency: int
) -> tuple[list[_Attempt], float]:
    """Requests from a cold start to their results, so many at a time, and the seconds that took in all."""
    await _forget(setting.pair)
    slots = asyncio.Semaphore(concurrency)

    async def attempt(problem: BenchProblem, sample: int) -> _Attempt:
        async with slots:
            return await _attempted(method, problem.prompt, setting.seed_of(problem.problem_id, sample))

    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(attempt(*cell)) for cell in cells]
    return [task.result() for task in tasks], time.perf_counter() - start


async def _attempted(method: Method, prompt: str, seed: int) -> _Attempt:
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    start = time.perf_counter()
    result, note = None, ""
    try:
        result = await method.solve(prompt, seed)
    except SemanticSpecError as error:
        note = f"{type(error).__name__}: {first_line(error)}"
    return _Attempt(result, note, time.perf_counter() - start, started_at)


def _graded(setting: Setting, method: str, problem: BenchProblem, sample: int, attempt: _Attempt) -> Row:
    """The row of a request; grading counts in no seconds."""
    result, note = attempt.result, attempt.note
    answer, right, fields = "", False, dict[str, Any](finish_reason=FAILED)
    if result is not None:
        fields = figures_of(result)
        grade = setting.grader.grade(result.text, problem.gold, truncated=result.finish_reason == "length")
        answer, right, note = grade.answer, grade.right, grade.note
    return Row(
        task=setting.task,
        problem_id=problem.problem_id,
        method=method,
        sample=sample,
        seed=setting.seed_of(problem.problem_id, sample),
        digest=problem.digest,
        gold=problem.gold,
        answer=answer,
        right=right,
        wall_s=attempt.wall_s,
        started_at=attempt.started_at,
        note=note,
        **fields,
    )


async def _forget(pair: Pair) -> None:
    """Every block starts with empty caches: what another method read of these prompts must not help it."""
    for engine in (pair.target.engine, pair.draft.engine):
        if isinstance(engine, Forgetting):
            await engine.forget()


async def _warm_up(pair: Pair, prompt: str) -> None:
    """First calls are slow: kernels are chosen, memory is taken. They count for nobody."""
    config = DecodingConfig(rule=RuleConfig("never"), max_new_tokens=_WARM_UP_TOKENS)
    try:
        await LoopMethod("warm-up", pair, config).solve(prompt, 0)
    except SemanticSpecError:
        return  # a prompt that cannot be answered fails again, and counts, in the run itself
