"""Summary of a replay: seconds by phase, speed-ups with their spread, and the predictions of the cost model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from semanticspec.benchmark.replay import NOTE
from semanticspec.benchmark.replay.cases import PLAIN, TARGET, Case, Decisions
from semanticspec.benchmark.replay.costs import TokenCosts, measured_costs, predicted_s
from semanticspec.benchmark.replay.folder import Key, Record
from semanticspec.benchmark.replay.play import PHASES, Play
from semanticspec.output.console import TableSection


def whole_trials(plays: Iterable[Key], cases: Sequence[Case], trials: int) -> list[int]:
    """Returns the trials in which every request was played in every case."""
    there = set(plays)
    return [
        trial
        for trial in range(trials)
        if all((trial, index, case.name) in there for case in cases for index in range(len(case.plans)))
    ]


def summarize(
    plays: Mapping[Key, Record], cases: Sequence[Case], trials: Sequence[int], decisions: Decisions
) -> dict[str, Any]:
    """Returns the figures over complete trials (at least one)."""
    by_case = {
        case.name: [
            [plays[trial, index, case.name].play for index in range(len(case.plans))] for trial in trials
        ]
        for case in cases
    }
    costs = measured_costs(_all(by_case[TARGET]), _all(by_case[PLAIN]))
    seconds = {name: [sum(play.wall_s for play in trial) for trial in own] for name, own in by_case.items()}
    segment_tokens = decisions.described["segment_tokens"]
    return {
        "note": NOTE,
        "source": decisions.described,
        "trials": len(trials),
        "terms": costs.to_json(),
        "limit_speedup": costs.limit_speedup(segment_tokens),
        "cases": {
            case.name: _figures(case, _all(by_case[case.name]), len(trials))
            | _speed(seconds[TARGET], seconds[case.name])
            | _predicted(case, cases[0], costs)
            for case in cases
        },
    }


def _all(trials: Sequence[Sequence[Play]]) -> list[Play]:
    return [play for trial in trials for play in trial]


def _figures(case: Case, plays: Sequence[Play], trials: int) -> dict[str, Any]:
    """Mean seconds of a trial, total and by phase, and its counts."""
    counts = case.counts()
    seconds = {name: sum(getattr(play, name) for play in plays) / trials for name in ("wall_s", *PHASES)}
    other_s = seconds["wall_s"] - sum(seconds[name] for name in PHASES)
    return {
        **seconds,
        "other_s": other_s,
        "seconds_per_token": seconds["wall_s"] / counts.num_tokens,
        "draft_token_share": counts.draft_tokens / counts.num_tokens,
        "counts": counts.to_json(),
    }


def _speed(baseline: Sequence[float], own: Sequence[float]) -> dict[str, Any]:
    """Speed-up over all trials, and of the slowest and fastest trial."""
    each = [base / mine for base, mine in zip(baseline, own, strict=True)]
    return {"speedup": sum(baseline) / sum(own), "speedup_range": (min(each), max(each))}


def _predicted(case: Case, baseline: Case, costs: TokenCosts) -> dict[str, Any]:
    own = sum(predicted_s(plan, costs) for plan in case.plans)
    base = sum(predicted_s(plan, costs) for plan in baseline.plans)
    return {"predicted_seconds_per_token": own / case.counts().num_tokens, "predicted_speedup": base / own}


def replay_table(summary: Mapping[str, Any]) -> TableSection:
    """A table with one row per case; milliseconds are per output token."""
    source = summary["source"]
    models = f"{summary['target']['name']} and {summary['draft']['name']}, {summary['dtype']}"
    title = (
        f"Replay of {source['decisions']} decisions, random weights: {models}; requests: {source['requests']}, "
        f"tokens: {source['tokens']}, trials: {summary['trials']}"
    )
    rows = {name: [cell(figures) for cell in _COLUMNS.values()] for name, figures in summary["cases"].items()}
    return TableSection(title, f"in brackets: slowest and fastest trial; {NOTE}", list(_COLUMNS), rows)


def _ms_of(phase: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda f: f"{1000 * f[phase] / f['counts']['num_tokens']:.2f}"


_COLUMNS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "speed-up": lambda f: f"{f['speedup']:.2f}x [{f['speedup_range'][0]:.2f}, {f['speedup_range'][1]:.2f}]",
    "predicted": lambda f: f"{f['predicted_speedup']:.2f}x",
    "ms/token": lambda f: f"{1000 * f['seconds_per_token']:.2f}",
    "prompt": _ms_of("prompt_s"),
    "draft": _ms_of("draft_s"),
    "verify": _ms_of("verify_s"),
    "write": _ms_of("rewrite_s"),
    "other": _ms_of("other_s"),
    "by the draft": lambda f: f"{f['draft_token_share']:.1%}",
}


def costs_text(summary: Mapping[str, Any]) -> str:
    """The cost model in a few sentences."""
    costs, source = TokenCosts(**summary["terms"]), summary["source"]
    acceptance = source["token_acceptance"]
    proposed = (
        ""
        if acceptance is None
        else f" Of proposed tokens {acceptance:.0%} are kept ({source['token_acceptance_from']})."
    )
    return (
        "Cost model, measured in the target alone and the plain loop: a token takes "
        f"{1000 * costs.drafted_token_s:.2f} ms to draft, {1000 * costs.verified_token_s:.2f} ms to verify plus "
        f"{1000 * costs.verified_pass_s:.2f} ms per pass, {1000 * costs.target_token_s:.2f} ms to decode with the "
        f"target. If every drafted segment ({source['segment_tokens']:.1f} tokens) were accepted, the speed-up would "
        f"be {summary['limit_speedup']:.2f}x. Overlap is predicted as if each model had its own device.{proposed} "
        "Probes are left out."
    )
