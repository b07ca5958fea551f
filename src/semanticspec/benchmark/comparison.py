"""Runs methods on the same problems, problem by problem, so that a drift of the machine hits all alike."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from semanticspec.benchmark.methods import Method
from semanticspec.benchmark.statistics import Interval, mean, ratio_of_sums
from semanticspec.decoding import generate_async
from semanticspec.engines.base import derived_seed
from semanticspec.records import Result

BASELINE = "target"
PROPOSED = "semantic"


@dataclass(frozen=True, slots=True)
class Task:
    """A problem and how its answer is graded."""

    problem_id: str
    prompt: str
    is_right: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Row:
    """One problem solved by one method. Seconds are wall-clock, counted for right and wrong answers alike."""

    problem_id: str
    method: str
    right: bool
    truncated: bool
    num_tokens: int
    draft_tokens: int
    segments_accepted: int
    segments_rejected: int
    wall_s: float
    draft_s: float
    verify_s: float
    rewrite_s: float
    probe_s: float

    @classmethod
    def of(cls, task: Task, method: str, result: Result) -> Row:
        """The figures of a finished request."""
        stats = asdict(result.stats)
        names = set(cls.__dataclass_fields__) & set(stats)
        return cls(
            problem_id=task.problem_id,
            method=method,
            right=task.is_right(result.text),
            truncated=result.finish_reason == "length",
            **{name: stats[name] for name in names},
        )


async def run(method: Method, task: Task) -> Result:
    """Solves one problem; its seed follows from the configuration's and the problem."""
    seed = derived_seed(method.config.seed, task.problem_id)
    return await generate_async(method.pair, task.prompt, replace(method.config, seed=seed))


def compare(methods: Sequence[Method], tasks: Sequence[Task]) -> Iterator[tuple[Row, Result]]:
    """Solves every problem with every method; who goes first changes from problem to problem."""
    with asyncio.Runner() as runner:
        for number, task in enumerate(tasks):
            first = number % len(methods)
            for method in (*methods[first:], *methods[:first]):
                result = runner.run(run(method, task))
                yield Row.of(task, method.name, result), result


def summarize(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Figures of each method, those of speed and accuracy relative to the target alone in the same run.

    Only problems that every method has finished count.
    """
    by_method: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_method.setdefault(row.method, {})[row.problem_id] = row
    shared = sorted(set.intersection(*(set(solved) for solved in by_method.values()))) if by_method else []
    if not shared:
        return {}
    rows_of = {name: [solved[i] for i in shared] for name, solved in by_method.items()}
    summary = {name: _figures(own) for name, own in rows_of.items()}
    for name, own in rows_of.items():
        if BASELINE in rows_of:
            summary[name] |= _against_target(own, rows_of[BASELINE])
        if PROPOSED in rows_of:
            difference, interval = _accuracy_difference(own, rows_of[PROPOSED])
            summary[name] |= {
                "accuracy_diff_to_semantic": difference,
                "accuracy_diff_to_semantic_ci95": interval,
            }
    return summary


def _figures(rows: Sequence[Row]) -> dict[str, Any]:
    def total(name: str) -> float:
        return float(sum(getattr(row, name) for row in rows))

    accuracy, accuracy_ci95 = mean([row.right for row in rows])
    decided = total("segments_accepted") + total("segments_rejected")
    phases = {name: total(name) for name in ("draft_s", "verify_s", "rewrite_s", "probe_s")}
    return {
        "problems": len(rows),
        "accuracy": accuracy,
        "accuracy_ci95": accuracy_ci95,
        "tokens": total("num_tokens"),
        "wall_s": total("wall_s"),
        "seconds_per_token": total("wall_s") / total("num_tokens"),
        "truncated_share": total("truncated") / len(rows),
        "draft_token_share": total("draft_tokens") / total("num_tokens"),
        "segment_acceptance_rate": total("segments_accepted") / decided if decided else None,
        **phases,
        "overhead_share": 1 - sum(phases.values()) / total("wall_s"),
    }


def _against_target(rows: Sequence[Row], target: Sequence[Row]) -> dict[str, Any]:
    speedup, speedup_ci95 = ratio_of_sums([row.wall_s for row in target], [row.wall_s for row in rows])
    difference, difference_ci95 = _accuracy_difference(rows, target)
    return {
        "speedup": speedup,
        "speedup_ci95": speedup_ci95,
        "accuracy_diff": difference,
        "accuracy_diff_ci95": difference_ci95,
        "length_ratio": sum(row.num_tokens for row in rows) / sum(row.num_tokens for row in target),
    }


def _accuracy_difference(rows: Sequence[Row], others: Sequence[Row]) -> tuple[float, Interval]:
    """Paired by problem."""
    return mean([float(row.right) - float(other.right) for row, other in zip(rows, others, strict=True)])
