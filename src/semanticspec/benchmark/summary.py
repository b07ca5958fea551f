"""The figures of each method: accuracy, speed and where the time goes, with 95 % intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from semanticspec.benchmark.costs import TARGETS, Costs, measure_costs, total, verifying_methods
from semanticspec.benchmark.rows import Row
from semanticspec.benchmark.statistics import difference, percentiles, ratio_of_rates, ratio_of_sums, share

PROPOSED = "semantic"
PHASES = ("draft_s", "verify_s", "probe_s", "rewrite_s")
RequestKey = tuple[str, str, int]
"""Task, problem and sample of a request."""


class Comparison:
    """The requests that every method has finished: right, wrong, truncated and failed ones alike.

    Attributes:
        rows: by method, with the requests in the same order for all methods.
        requests: the keys of these requests.
        baseline: the faster of `target` and `hf-target`; None if neither is there.
    """

    def __init__(self, rows: Sequence[Row], methods: Sequence[str] | None = None) -> None:
        """Selects the requests.

        Args:
            methods: the methods to compare, in this order; None for all, in the order of their first rows.
        """
        by_method: dict[str, dict[RequestKey, Row]] = {name: {} for name in methods or ()}
        for row in rows:
            if methods is None or row.method in by_method:
                by_method.setdefault(row.method, {})[row.key[:3]] = row
        solved = list(by_method.values())
        requests = sorted(set(solved[0]).intersection(*solved[1:])) if solved else []
        self.rows = (
            {name: [own[key] for key in requests] for name, own in by_method.items()} if requests else {}
        )
        self.requests = requests
        present = [name for name in TARGETS if name in self.rows]
        self.baseline = min(present, key=lambda name: self.total(name, "wall_s"), default=None)

    @property
    def num_problems(self) -> int:
        return len({key[:2] for key in self.requests})

    @property
    def concurrent(self) -> bool:
        """Whether requests ran concurrently."""
        first = next(iter(self.rows.values()), [])
        return len({row.block for row in first}) < len(first) and all(row.share_s for row in first)

    def total(self, method: str, field: str) -> float:
        """Sums a field over all requests of a method."""
        return total(self.rows[method], field)

    def seconds(self, method: str) -> list[float]:
        """Returns charged wall-clock seconds, summed by problem.

        A failed request is charged the baseline's seconds on top of its own, since its user has to ask the target
        then. So a method cannot look fast by failing early.
        """
        return [sum(values) for values in self._by_problem(self._charged(method, "wall_s"))]

    def tokens(self, method: str) -> list[float]:
        """Returns output tokens, charged as in `seconds`, summed by problem."""
        return [sum(values) for values in self._by_problem(self._charged(method, "num_tokens"))]

    def block_seconds(self, method: str) -> list[float]:
        """Returns seconds of the machine, charged as in `seconds`, summed by the baseline's blocks."""
        assert self.baseline is not None
        sums: dict[int, float] = {}
        for value, other in zip(self._charged(method, "share_s"), self.rows[self.baseline], strict=True):
            sums[other.block] = sums.get(other.block, 0.0) + value
        return list(sums.values())

    def accuracies(self, method: str) -> list[float]:
        """Returns the share of right samples of each problem."""
        rights = [float(row.right) for row in self.rows[method]]
        return [sum(values) / len(values) for values in self._by_problem(rights)]

    def costs(self) -> Costs | None:
        """Returns what a token costs in this run, see `measure_costs`."""
        return measure_costs(self.rows)

    def _charged(self, method: str, field: str) -> list[float]:
        """Returns a field, plus the baseline's where the request failed."""
        own = self.rows[method]
        values = [float(getattr(row, field)) for row in own]
        if self.baseline is None or method == self.baseline:
            return values
        fallback = [float(getattr(row, field)) for row in self.rows[self.baseline]]
        return [
            value + (other if row.failed else 0.0)
            for value, row, other in zip(values, own, fallback, strict=True)
        ]

    def _by_problem(self, values: Sequence[float]) -> list[list[float]]:
        """Groups one value per request by problem."""
        groups: dict[tuple[str, str], list[float]] = {}
        for key, value in zip(self.requests, values, strict=True):
            groups.setdefault(key[:2], []).append(value)
        return list(groups.values())


def summarize(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """Returns the figures by method, and empty if no request is finished by every method."""
    costs, limited = comparison.costs(), verifying_methods(comparison.rows)
    summary = {}
    for name in comparison.rows:
        own = _own_figures(comparison, name) | _against_baseline(comparison, name)
        own |= _throughput(comparison, name)
        if PROPOSED in comparison.rows:
            own |= _accuracy_difference(comparison, name, PROPOSED, "accuracy_diff_to_semantic")
            ratio, interval = ratio_of_sums(comparison.seconds(PROPOSED), comparison.seconds(name))
            own |= {"speedup_to_semantic": ratio, "speedup_to_semantic_ci95": interval}
        if costs is not None and "speedup" in own and name in limited:
            own["limit_speedup"] = costs.limit_speedup
            own["limit_share"] = own["speedup"] / costs.limit_speedup
        summary[name] = own
    return summary


def summary_json(comparison: Comparison) -> dict[str, Any]:
    """Returns the content of `summary.json` that follows from the rows."""
    costs = comparison.costs()
    return {
        "problems": comparison.num_problems,
        "requests": len(comparison.requests),
        "baseline": comparison.baseline,
        "costs": None if costs is None else asdict(costs),
        "methods": summarize(comparison),
    }


def _own_figures(comparison: Comparison, name: str) -> dict[str, Any]:
    rows = comparison.rows[name]
    num_requests, tokens, wall_s = len(rows), total(rows, "num_tokens"), total(rows, "wall_s")
    accuracy, accuracy_ci95 = share(comparison.accuracies(name))
    judged = total(rows, "judged")
    phases = {field: total(rows, field) for field in PHASES}
    return {
        "problems": comparison.num_problems,
        "requests": num_requests,
        "accuracy": accuracy,
        "accuracy_ci95": accuracy_ci95,
        "tokens": tokens,
        "wall_s": wall_s,
        "seconds_per_request": wall_s / num_requests,
        "seconds_per_token": wall_s / tokens if tokens else None,
        "truncated_problems": list(dict.fromkeys(row.problem_id for row in rows if row.truncated)),
        "truncated_share": total(rows, "truncated") / num_requests,
        "failed_share": total(rows, "failed") / num_requests,
        "draft_token_share": total(rows, "draft_tokens") / tokens if tokens else 0.0,
        "segment_acceptance_rate": total(rows, "segments_accepted") / judged if judged else None,
        **phases,
        "overhead_share": 1 - sum(phases.values()) / wall_s if wall_s else 0.0,
    }


def _against_baseline(comparison: Comparison, name: str) -> dict[str, Any]:
    """Compares speed with the baseline, and accuracy and length with `target` if it is there."""
    baseline = comparison.baseline
    if baseline is None:
        return {}
    speedup, speedup_ci95 = ratio_of_sums(comparison.seconds(baseline), comparison.seconds(name))
    reference = TARGETS[0] if TARGETS[0] in comparison.rows else baseline
    target_tokens = comparison.total(reference, "num_tokens")
    return {
        "speedup": speedup,
        "speedup_ci95": speedup_ci95,
        **_speedup_per_token(comparison, name),
        **_accuracy_difference(comparison, name, reference, "accuracy_diff"),
        "length_ratio": comparison.total(name, "num_tokens") / target_tokens if target_tokens else None,
    }


def _speedup_per_token(comparison: Comparison, name: str) -> dict[str, Any]:
    """Returns the speed-up by seconds per token, which a method cannot raise by writing less."""
    baseline = comparison.baseline
    assert baseline is not None
    found = ratio_of_rates(
        comparison.seconds(baseline),
        comparison.tokens(baseline),
        comparison.seconds(name),
        comparison.tokens(name),
    )
    return {} if found is None else {"speedup_per_token": found[0], "speedup_per_token_ci95": found[1]}


def _throughput(comparison: Comparison, name: str) -> dict[str, Any]:
    """Returns latencies and throughput; for concurrent requests also relative to the baseline.

    The interval resamples blocks, since requests of a block wait for each other.
    """
    rows, baseline = comparison.rows[name], comparison.baseline
    found: dict[str, Any] = {"latency_s": percentiles([row.wall_s for row in rows])}
    if not all(row.share_s for row in rows):
        return found
    total_s = total(rows, "share_s")
    found |= {
        "requests_per_s": len(rows) / total_s,
        "tokens_per_s": total(rows, "num_tokens") / total_s,
    }
    if baseline is None or not comparison.concurrent:
        return found
    ratio, interval = ratio_of_sums(comparison.block_seconds(baseline), comparison.block_seconds(name))
    return found | {"throughput_ratio": ratio, "throughput_ratio_ci95": interval}


def _accuracy_difference(comparison: Comparison, name: str, other: str, key: str) -> dict[str, Any]:
    """Paired by problem; exactly 0 for a method and itself."""
    if name == other:
        return {key: 0.0, f"{key}_ci95": (0.0, 0.0)}
    value, interval = difference(comparison.accuracies(name), comparison.accuracies(other))
    return {key: value, f"{key}_ci95": interval}
