"""Runs methods in turns on the same problems, so that a drift of the machine affects all of them alike."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from semanticspec.benchmark.grading import Grader
from semanticspec.benchmark.methods import (
    LoopMethod,
    Method,
    make_method,
    random_control,
    split_name,
    with_strictness,
)
from semanticspec.benchmark.rows import FAILED, Row, RowKey, measurements
from semanticspec.benchmark.tasks import BenchProblem
from semanticspec.config import DecodingConfig, RuleConfig
from semanticspec.decoding.pair import Pair
from semanticspec.engines.base import ResettableCache, derived_seed
from semanticspec.errors import BenchmarkError, SemanticSpecError, first_line
from semanticspec.output.progress import progress_bar
from semanticspec.records import Result

Request = tuple[BenchProblem, int]
"""A problem and a sample number."""

MAX_FAILURES = 3
"""A run stops after this many failed requests of one method in a row."""

_WARM_UP_TOKENS = 16
_ROUNDS = 4  # concurrent requests per slot in a block: fewer run at its end


@dataclass(frozen=True, slots=True)
class Block:
    """Requests that one method solves before the next method has its turn.

    Attributes:
        number: from 0, the same for all methods.
        requests: pairs of a problem and a sample number.
    """

    number: int
    method: Method
    requests: tuple[Request, ...]


@dataclass(frozen=True, slots=True)
class RunContext:
    """What the requests of a run share. `seed` decides the seed of each request, the same for all methods."""

    task: str
    pair: Pair
    grader: Grader
    seed: int = 0

    def seed_of(self, problem_id: str, sample: int) -> int:
        return derived_seed(self.seed, self.task, problem_id, sample)


def schedule(
    problems: Sequence[BenchProblem], methods: Sequence[Method], samples: int, concurrency: int = 1
) -> Iterator[Block]:
    """Yields all requests block by block; the method that goes first changes with each block.

    A block is one request per method, or several rounds of concurrent requests.
    """
    requests = [(problem, sample) for problem in problems for sample in range(samples)]
    size = 1 if concurrency == 1 else _ROUNDS * concurrency
    for number, start in enumerate(range(0, len(requests), size)):
        first = number % len(methods)
        for method in (*methods[first:], *methods[:first]):
            yield Block(number, method, tuple(requests[start : start + size]))


def run(
    context: RunContext,
    problems: Sequence[BenchProblem],
    methods: Sequence[Method],
    *,
    samples: int = 1,
    concurrency: int = 1,
    done: Set[RowKey] = frozenset(),
) -> Iterator[Row]:
    """Solves and grades all requests that are not done yet.

    One untimed warm-up request runs first. Rows come block by block.

    Args:
        concurrency: number of requests that run at the same time, all of one method.
        done: keys of existing rows.

    Raises:
        BenchmarkError: a method failed several times in a row.
    """
    failures = {method.name: 0 for method in methods}
    with asyncio.Runner() as runner:
        warm = False
        for block in schedule(problems, methods, samples, concurrency):
            name = block.method.name
            requests = [
                (problem, sample)
                for problem, sample in block.requests
                if (context.task, problem.problem_id, sample, name) not in done
            ]
            if not requests:
                continue
            if not warm:
                runner.run(_warm_up(context.pair, requests[0][0].prompt))
                warm = True
            attempts, wall_s = runner.run(_solve_block(context, block.method, requests, concurrency))
            for (problem, sample), attempt in zip(requests, attempts, strict=True):
                row = _grade(context, name, problem, sample, attempt)
                failures[name] = failures[name] + 1 if row.failed else 0
                yield replace(row, block=block.number, share_s=wall_s / len(requests))
            if failures[name] >= MAX_FAILURES:
                raise BenchmarkError(
                    f"{name} failed {MAX_FAILURES} times in a row, last with: {row.note}; fix it or leave the method "
                    "out (existing rows are kept)"
                )


def make_calibrated_method(
    name: str,
    context: RunContext,
    config: DecodingConfig,
    pilot: Sequence[BenchProblem],
    known_rule: RuleConfig | None = None,
) -> Method:
    """Creates a method. A random control gets the acceptance rates of the semantic rule on the pilot's problems.

    Args:
        pilot: problems that are not compared.
        known_rule: the rule of a random control whose pilot has run before.
    """
    base, strictness = split_name(name)
    if base == "random":
        config = with_strictness(config, strictness)
        config = replace(config, rule=known_rule or run_pilot(name, context, config, pilot))
    return make_method(name, context.pair, config)


def run_pilot(
    name: str, context: RunContext, config: DecodingConfig, problems: Sequence[BenchProblem]
) -> RuleConfig:
    """Runs the semantic rule on problems that are not compared, and returns the rule of its random control `name`."""
    semantic = make_method("semantic", context.pair, config)

    async def solve_all(on_solved: Callable[[str], None]) -> list[Result]:
        results = []
        for problem in problems:
            results.append(await semantic.solve(problem.prompt, context.seed_of(problem.problem_id, 0)))
            on_solved("")
        return results

    with progress_bar(f"pilot of {name}") as (progress, on_total):
        on_total(len(problems))
        return random_control(asyncio.run(solve_all(progress)), config.rule)


@dataclass(frozen=True, slots=True)
class _Attempt:
    """The outcome of one request: a result, or a note if the method failed."""

    result: Result | None
    note: str
    wall_s: float
    started_at: str


async def _solve_block(
    context: RunContext, method: Method, requests: Sequence[Request], concurrency: int
) -> tuple[list[_Attempt], float]:
    """Solves requests with empty caches, `concurrency` at a time; returns outcomes and seconds in total."""
    await _reset_caches(context.pair)
    slots = asyncio.Semaphore(concurrency)

    async def solve(problem: BenchProblem, sample: int) -> _Attempt:
        async with slots:
            return await _solve(method, problem.prompt, context.seed_of(problem.problem_id, sample))

    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(solve(*request)) for request in requests]
    return [task.result() for task in tasks], time.perf_counter() - start


async def _solve(method: Method, prompt: str, seed: int) -> _Attempt:
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    start = time.perf_counter()
    result, note = None, ""
    try:
        result = await method.solve(prompt, seed)
    except SemanticSpecError as error:
        note = f"{type(error).__name__}: {first_line(error)}"
    return _Attempt(result, note, time.perf_counter() - start, started_at)


def _grade(context: RunContext, method: str, problem: BenchProblem, sample: int, attempt: _Attempt) -> Row:
    """Returns the row of a request. Grading is not timed."""
    result, note = attempt.result, attempt.note
    answer, right, fields = "", False, dict[str, Any](finish_reason=FAILED)
    if result is not None:
        fields = measurements(result)
        grade = context.grader.grade(result.text, problem.gold, truncated=result.finish_reason == "length")
        answer, right, note = grade.answer, grade.right, grade.note
    return Row(
        task=context.task,
        problem_id=problem.problem_id,
        method=method,
        sample=sample,
        seed=context.seed_of(problem.problem_id, sample),
        digest=problem.digest,
        gold=problem.gold,
        answer=answer,
        right=right,
        wall_s=attempt.wall_s,
        started_at=attempt.started_at,
        note=note,
        **fields,
    )


async def _reset_caches(pair: Pair) -> None:
    """Empties the prefix caches, so that no method profits from another one's prefill of the same prompt."""
    for engine in (pair.target.engine, pair.draft.engine):
        if isinstance(engine, ResettableCache):
            await engine.reset_cache()


async def _warm_up(pair: Pair, prompt: str) -> None:
    """Runs one short request, since first calls are slow."""
    config = DecodingConfig(rule=RuleConfig("never"), max_new_tokens=_WARM_UP_TOKENS)
    try:
        await LoopMethod("warm-up", pair, config).solve(prompt, 0)
    except SemanticSpecError:
        return  # the request fails again in the run itself, where it is counted
