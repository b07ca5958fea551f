"""The bundled pair on its own grammar: the comparison behind `semanticspec demo`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from semanticspec.benchmark.comparison import Task, run
from semanticspec.benchmark.methods import Method, make_method, random_control
from semanticspec.config import DecodingConfig
from semanticspec.demo.grammar import Problem, answer_of, problems
from semanticspec.pair import Pair

PILOT_PROBLEMS = 60


def demo_tasks(split: str, count: int, seed: int = 0) -> list[Task]:
    """Problems of the bundled grammar, graded by the number in the box."""
    return [_task(f"{split}-{seed}-{i}", p) for i, p in enumerate(problems(split, count, seed))]  # type: ignore[arg-type]


def _task(problem_id: str, problem: Problem) -> Task:
    return Task(problem_id, problem.text, lambda text: answer_of(text) == problem.answer)


def demo_methods(
    names: Sequence[str], pair: Pair, config: DecodingConfig, on_pilot: Callable[[int], None] = lambda _: None
) -> list[Method]:
    """Methods by name; the random control's rate comes from a pilot on validation problems.

    Args:
        on_pilot: called after each pilot problem with how many are done.
    """
    methods = [make_method(name, pair, config) for name in names if name != "random"]
    if "random" in names:
        semantic = make_method("semantic", pair, config)

        async def pilot() -> list:  # type: ignore[type-arg]
            results = []
            for task in demo_tasks("validation", PILOT_PROBLEMS, seed=1):
                results.append(await run(semantic, task))
                on_pilot(len(results))
            return results

        rule = random_control(asyncio.run(pilot()), config.rule)
        methods.append(Method("random", pair, replace(config, rule=rule)))
    return methods
