"""The figures of each method. Every request counts: right, wrong, truncated and failed ones alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from semanticspec.benchmark.costs import Costs, costs_of, verifying_methods
from semanticspec.benchmark.rows import Row
from semanticspec.benchmark.statistics import difference, percentiles, ratio_of_sums, share

BASELINES = ("target", "hf-target")
PROPOSED = "semantic"
PHASES = ("draft_s", "verify_s", "probe_s", "rewrite_s")
Cell = tuple[str, str, int]
"""A task, a problem and the number of a sample."""


class Comparison:
    """The requests that every method has finished, and what follows from them.

    Attributes:
        rows: by method, in one order of requests for all.
        baseline: the faster of `target` and `hf-target`, in seconds over all of these; None without either.
    """

    def __init__(self, rows: Sequence[Row], methods: Sequence[str] | None = None) -> None:
        """`methods` keeps to these, in this order; default: all there are, as they first come."""
        by_method: dict[str, dict[Cell, Row]] = {name: {} for name in methods or ()}
        for row in rows:
            if methods is None or row.method in by_method:
                by_method.setdefault(row.method, {})[row.key[:3]] = row
        solved = list(by_method.values())
        cells = sorted(set(solved[0]).intersection(*solved[1:])) if solved else []
        self.rows = {name: [own[cell] for cell in cells] for name, own in by_method.items()} if cells else {}
        self.cells = cells
        there = [name for name in BASELINES if name in self.rows]
        self.baseline = min(there, key=lambda name: self.total(name, "wall_s")) if there else None

    @property
    def num_problems(self) -> int:
        return len({cell[:2] for cell in self.cells})

    def total(self, method: str, field: str) -> float:
        """Sum of a field over all requests."""
        return float(sum(getattr(row, field) for row in self.rows[method]))

    def by_problem(self, values: Sequence[float]) -> list[list[float]]:
        """One value a request, gathered by problem: its samples belong together."""
        gathered: dict[tuple[str, str], list[float]] = {}
        for cell, value in zip(self.cells, values, strict=True):
            gathered.setdefault(cell[:2], []).append(value)
        return list(gathered.values())

    def seconds(self, method: str) -> list[float]:
        """Charged seconds, summed by problem.

        A failed request is charged the baseline's seconds on top of its own: whoever meets the failure has to ask
        the target then. So failing early cannot look fast.
        """
        own = self.rows[method]
        charged = [row.wall_s for row in own]
        if self.baseline is not None and method != self.baseline:
            fallback = self.rows[self.baseline]
            charged = [
                row.wall_s + (other.wall_s if row.failed else 0.0)
                for row, other in zip(own, fallback, strict=True)
            ]
        return [sum(values) for values in self.by_problem(charged)]

    @property
    def concurrent(self) -> bool:
        """Whether requests ran at once."""
        first = next(iter(self.rows.values()), [])
        return len({row.block for row in first}) < len(first) and all(row.share_s for row in first)

    def shares(self, method: str) -> list[float]:
        """Seconds of the machine, charged as in `seconds`, summed by block (of the baseline's)."""
        assert self.baseline is not None
        sums: dict[int, float] = {}
        for row, other in zip(self.rows[method], self.rows[self.baseline], strict=True):
            fallback_s = other.share_s if row.failed and method != self.baseline else 0.0
            sums[other.block] = sums.get(other.block, 0.0) + row.share_s + fallback_s
        return list(sums.values())

    def accuracies(self, method: str) -> list[float]:
        """Share of right samples, by problem."""
        rights = [float(row.right) for row in self.rows[method]]
        return [sum(values) / len(values) for values in self.by_problem(rights)]

    def costs(self) -> Costs | None:
        """What a token costs in this run, see `costs_of`."""
        return costs_of(self.rows)


def summarize(rows: Sequence[Row], methods: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Figures of each method over the problems that every method has finished; nothing if there are none."""
    return figures(Comparison(rows, methods))


def figures(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """Figures of each method, speed and accuracy relative to the target in the same run."""
    summary = {name: _own_figures(comparison, name) for name in comparison.rows}
    costs, limited = comparison.costs(), verifying_methods(comparison.rows)
    for name, own in summary.items():
        own |= _against_baseline(comparison, name)
        own |= _throughput(comparison, name)
        if PROPOSED in comparison.rows:
            own |= _accuracy_against(comparison, name, PROPOSED, "accuracy_diff_to_semantic")
            ratio, interval = ratio_of_sums(comparison.seconds(PROPOSED), comparison.seconds(name))
            own |= {"speedup_to_semantic": ratio, "speedup_to_semantic_ci95": interval}
        if costs is not None and "speedup" in own and name in limited:
            own["limit_speedup"] = costs.limit_speedup
            own["limit_share"] = own["speedup"] / costs.limit_speedup
    return summary


def _own_figures(comparison: Comparison, name: str) -> dict[str, Any]:
    def total(field: str) -> float:
        return comparison.total(name, field)

    num_requests, tokens, wall_s = len(comparison.cells), total("num_tokens"), total("wall_s")
    accuracy, accuracy_ci95 = share(comparison.accuracies(name))
    decided = total("segments_accepted") + total("segments_rejected")
    phases = {field: total(field) for field in PHASES}
    return {
        "problems": comparison.num_problems,
        "requests": num_requests,
        "accuracy": accuracy,
        "accuracy_ci95": accuracy_ci95,
        "tokens": tokens,
        "wall_s": wall_s,
        "seconds_per_token": wall_s / tokens if tokens else None,
        "truncated_share": total("truncated") / num_requests,
        "failed_share": total("failed") / num_requests,
        "draft_token_share": total("draft_tokens") / tokens if tokens else 0.0,
        "segment_acceptance_rate": total("segments_accepted") / decided if decided else None,
        **phases,
        "overhead_share": 1 - sum(phases.values()) / wall_s if wall_s else 0.0,
    }


def _against_baseline(comparison: Comparison, name: str) -> dict[str, Any]:
    baseline = comparison.baseline
    if baseline is None:
        return {}
    speedup, speedup_ci95 = ratio_of_sums(comparison.seconds(baseline), comparison.seconds(name))
    reference = BASELINES[0] if BASELINES[0] in comparison.rows else baseline
    target_tokens = comparison.total(reference, "num_tokens")
    tokens = comparison.total(name, "num_tokens")
    return {
        "speedup": speedup,
        "speedup_ci95": speedup_ci95,
        **_accuracy_against(comparison, name, reference, "accuracy_diff"),
        "length_ratio": tokens / target_tokens if target_tokens else None,
    }


def _throughput(comparison: Comparison, name: str) -> dict[str, Any]:
    """Latencies, and what was done in a second; where requests ran at once, against the baseline too.

    The interval is over blocks, whose requests wait for each other.
    """
    rows, baseline = comparison.rows[name], comparison.baseline
    found: dict[str, Any] = {"latency_s": percentiles([row.wall_s for row in rows])}
    total_s = comparison.total(name, "share_s")
    if not all(row.share_s for row in rows):
        return found
    found |= {
        "requests_per_s": len(rows) / total_s,
        "tokens_per_s": comparison.total(name, "num_tokens") / total_s,
    }
    if baseline is None or not comparison.concurrent:
        return found
    ratio, ci95 = ratio_of_sums(comparison.shares(baseline), comparison.shares(name))
    return found | {"throughput_ratio": ratio, "throughput_ratio_ci95": ci95}


def _accuracy_against(comparison: Comparison, name: str, other: str, key: str) -> dict[str, Any]:
    """Paired by problem; a method does not differ from itself."""
    if name == other:
        return {key: 0.0, f"{key}_ci95": (0.0, 0.0)}
    value, interval = difference(comparison.accuracies(name), comparison.accuracies(other))
    return {key: value, f"{key}_ci95": interval}


def summary_json(
    comparison: Comparison, task: str, pair: str, settings: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What `summary.json` holds."""
    costs = comparison.costs()
    return {
        "task": task,
        "pair": pair,
        "problems": comparison.num_problems,
        "requests": len(comparison.cells),
        "baseline": comparison.baseline,
        "costs": None if costs is None else costs.to_json(),
        "methods": figures(comparison),
        **(settings or {}),
    }
