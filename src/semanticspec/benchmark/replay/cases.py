"""The cases of a replay: the target alone, the plain loop, and the loop with optimizations."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from semanticspec.benchmark.folder import BenchFolder
from semanticspec.benchmark.replay.options import ReplayOptions
from semanticspec.benchmark.replay.plan import Counts, Plan, loop_plan, parse_combination, target_plan
from semanticspec.benchmark.replay.trace import Synthetic, Trace, recorded, synthetic, token_acceptance
from semanticspec.errors import ConfigError

TARGET, PLAIN = "target", "plain"


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the comparison: a plan for each request."""

    name: str
    plans: tuple[Plan, ...]

    def counts(self) -> Counts:
        """Returns the totals over all requests."""
        each = [plan.counts() for plan in self.plans]
        return Counts(**{f.name: sum(getattr(counts, f.name) for counts in each) for f in fields(Counts)})

    def digests(self) -> dict[str, str]:
        """Returns a digest per request, to detect that a folder was made from other decisions."""
        return {
            f"request {number}": hashlib.sha256(repr(plan).encode()).hexdigest()[:16]
            for number, plan in enumerate(self.plans)
        }


@dataclass(frozen=True, slots=True)
class Decisions:
    """The decisions to replay and their origin.

    Attributes:
        traces: by the kept share of a rejected segment; recorded traces have the single key None.
        described: figures for the summary.
        acceptance: share of proposed tokens that are kept, where proposals are not recorded.
    """

    traces: dict[float | None, list[Trace]]
    described: dict[str, Any]
    acceptance: float | None


def read_decisions(options: ReplayOptions) -> Decisions:
    """Reads the decisions from the folder, or makes synthetic ones.

    Raises:
        ConfigError: the options contradict each other, or the folder has nothing to replay.
        BenchmarkError: the folder is not a benchmark folder, or its rows are broken.
    """
    given = options.token_acceptance
    if given is not None and not 0 <= given <= 1:
        raise ConfigError(f"--token-acceptance is {given}; expected a number from 0 to 1")
    return _synthetic(options) if options.folder is None else _recorded(options)


def make_cases(options: ReplayOptions, decisions: Decisions) -> list[Case]:
    """Makes the cases: the target alone, the plain loop, then the loop with each combination of optimizations.

    Raises:
        ConfigError: an optimization is unknown, or the acceptance of proposed tokens is needed and not known.
    """
    least = next(iter(decisions.traces.values()))  # the output length does not depend on what is kept
    cases = [Case(TARGET, tuple(map(target_plan, least))), Case(PLAIN, _loop(least, (), decisions, options))]
    for text in options.optimizations:
        optimizations = parse_combination(text)
        for share, traces in decisions.traces.items():
            kept = (
                f", {share:.0%} kept" if "partial-acceptance" in optimizations and share is not None else ""
            )
            cases.append(Case(f"{PLAIN}+{text}{kept}", _loop(traces, optimizations, decisions, options)))
            if not kept:
                break
    names = [case.name for case in cases]
    if len(set(names)) < len(names):
        raise ConfigError("a combination of optimizations or a kept share is given twice; give it once")
    return cases


def _loop(
    traces: Sequence[Trace], optimizations: Sequence[str], decisions: Decisions, options: ReplayOptions
) -> tuple[Plan, ...]:
    return tuple(loop_plan(trace, optimizations, decisions.acceptance, options.seed) for trace in traces)


def _recorded(options: ReplayOptions) -> Decisions:
    assert options.folder is not None
    if options.synthetic:
        raise ConfigError(
            f"{', '.join(options.synthetic)}: these are settings of a synthetic trace; leave out them or the folder"
        )
    if options.method is None:
        raise ConfigError("--method is missing; give the method in the folder whose decisions to replay")
    folder = BenchFolder(options.folder)
    methods = folder.config()["methods"]
    traces = recorded(folder.rows(), methods, options.method, options.num_requests)
    acceptance, origin = options.token_acceptance, "given"
    if acceptance is None:
        acceptance, origin = token_acceptance(traces), "recorded"
    described = {"decisions": "recorded", "folder": str(options.folder), "method": options.method}
    return Decisions({None: traces}, described | _figures(traces, acceptance, origin), acceptance)


def _synthetic(options: ReplayOptions) -> Decisions:
    if options.method is not None:
        raise ConfigError("--method needs a benchmark folder; give the folder, or leave out --method")
    wanted = Synthetic(**options.synthetic)
    names = [f"synthetic-{number}" for number in range(options.num_requests or 1)]
    traces: dict[float | None, list[Trace]] = {
        share: [synthetic(replace(wanted, kept_share=share), name, options.seed) for name in names]
        for share in options.kept_shares
    }
    given = options.token_acceptance
    acceptance = wanted.draft_share if given is None else given
    origin = "assumed: the share of accepted segments" if given is None else "given"
    figures = _figures(next(iter(traces.values())), acceptance, origin)
    described = figures | {"decisions": "synthetic", "kept_share": list(options.kept_shares)}
    return Decisions(traces, described, acceptance)


def _figures(traces: Sequence[Trace], acceptance: float | None, origin: str) -> dict[str, Any]:
    """Figures of the decisions."""
    judged = [step for trace in traces for step in trace.steps if step.accepted is not None]
    tokens, drafted = sum(trace.num_tokens for trace in traces), sum(step.drafted for step in judged)
    rejected = [step for step in judged if not step.accepted]
    rejected_tokens = sum(step.drafted for step in rejected)
    return {
        "requests": len(traces),
        "tokens": tokens,
        "segments": len(judged),
        "segment_tokens": drafted / len(judged),
        "segments_rejected": len(rejected),
        "draft_token_share": sum(step.kept for step in judged if step.accepted) / tokens,
        "kept_share": sum(step.kept for step in rejected) / rejected_tokens if rejected_tokens else None,
        "token_acceptance": acceptance,
        "token_acceptance_from": origin,
    }
