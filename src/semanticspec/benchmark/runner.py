"""Runs methods on the same problems, request by request, so that a drift of the machine hits all alike."""

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
from semanticspec.engines.base import Forgetting, derived_seed
from semanticspec.errors import BenchmarkError, SemanticSpecError, first_line
from semanticspec.pair import Pair
from semanticspec.records import Result

T = TypeVar("T")
MOST_FAILURES = 3
"""So many failed requests of one method in a row end the run: it is the method, not the problem."""

_WARM_UP_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Request:
    """One sample of one problem, to be solved by one method."""

    problem: BenchProblem
    sample: int
    method: Method


@dataclass(frozen=True, slots=True)
class Setting:
    """What all requests share. `seed` fixes those of the requests, the same for all methods."""

    task: str
    pair: Pair
    grader: Grader
    seed: int = 0

    def seed_of(self, problem_id: str, sample: int) -> int:
        return derived_seed(self.seed, self.task, problem_id, sample)


def schedule(problems: Sequence[BenchProblem], methods: Sequence[Method], samples: int) -> Iterator[Request]:
    """Every request, problem by problem; who goes first changes from one to the next."""
    turn = 0
    for problem in problems:
        for sample in range(samples):
            first = turn % len(methods)
            turn += 1
            for method in (*methods[first:], *methods[:first]):
                yield Request(problem, sample, method)


def run(
    setting: Setting,
    problems: Sequence[BenchProblem],
    methods: Sequence[Method],
    *,
    samples: int = 1,
    done: Set[tuple[str, str, int, str]] = frozenset(),
) -> Iterator[Row]:
    """Solves and grades every request that is not done yet.

    Args:
        done: keys of rows that are there, see `Row.key`.

    Raises:
        BenchmarkError: a method failed several times in a row.
    """
    failures = {method.name: 0 for method in methods}
    with asyncio.Runner() as runner:
        warm = False
        for request in schedule(problems, methods, samples):
            name = request.method.name
            if (setting.task, request.problem.problem_id, request.sample, name) in done:
                continue
            if not warm:
                runner.run(_warm_up(setting.pair, request.problem.prompt))
                warm = True
            row = runner.run(_solved(setting, request))
            failures[name] = failures[name] + 1 if row.failed else 0
            yield row
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


async def _solved(setting: Setting, request: Request) -> Row:
    """One request from a cold start to its row; grading is not counted."""
    problem, method = request.problem, request.method
    seed = setting.seed_of(problem.problem_id, request.sample)
    await _forget(setting.pair)
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    start = time.perf_counter()
    result: Result | None = None
    note = ""
    try:
        result = await method.solve(problem.prompt, seed)
    except SemanticSpecError as error:
        note = f"{type(error).__name__}: {first_line(error)}"
    wall_s = time.perf_counter() - start
    answer, right, fields = "", False, dict[str, Any](finish_reason=FAILED)
    if result is not None:
        fields = figures_of(result)
        grade = setting.grader.grade(result.text, problem.gold, truncated=result.finish_reason == "length")
        answer, right, note = grade.answer, grade.right, grade.note
    return Row(
        task=setting.task,
        problem_id=problem.problem_id,
        method=method.name,
        sample=request.sample,
        seed=seed,
        digest=problem.digest,
        gold=problem.gold,
        answer=answer,
        right=right,
        wall_s=wall_s,
        started_at=started_at,
        note=note,
        **fields,
    )


async def _forget(pair: Pair) -> None:
    """Every request starts with empty caches: what another method read of this prompt must not help it."""
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
