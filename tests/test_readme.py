"""The README's figures are those of the run that it names, and its tables in the docs are that run's."""

from __future__ import annotations

import json
import math
from pathlib import Path

from semanticspec.benchmark.statistics import share

ROOT = Path(__file__).parents[2]
RUN = ROOT / "docs/results/demo1000"
GSM8K_RUNS = [ROOT / "docs/results/gsm8k", ROOT / "docs/results/gsm8k-28-40"]


def test_figures_are_those_of_the_run() -> None:
    readme = " ".join((ROOT / "README.md").read_text().split())
    methods = json.loads((RUN / "summary.json").read_text())["methods"]
    default, plain, random = (methods[name] for name in ("semantic+prefix+tokens", "semantic", "random"))
    paper = methods["semantic-paper"]
    told = (
        f"{default['problems']} unseen problems",
        f"**{default['speedup']:.2f}x** {interval(default['speedup_ci95'], '.2f')}",
        f"accuracy {default['accuracy']:.1%} against {methods['target']['accuracy']:.1%}",
        f"({100 * default['accuracy_diff']:+.1f} {interval(default['accuracy_diff_ci95'], '+.1f', 100)} points)",
        f"{plain['speedup']:.2f}x {interval(plain['speedup_ci95'], '.2f')}, {plain['accuracy']:.1%}",
        f"({random['draft_token_share']:.0%} against {plain['draft_token_share']:.0%})",
        f"solves {random['accuracy']:.1%}",
        f"({100 * random['accuracy_diff_to_semantic']:+.1f} "
        f"{interval(random['accuracy_diff_to_semantic_ci95'], '+.1f', 100)} points to semantic)",
        f"{paper['speedup']:.2f}x at {paper['accuracy']:.1%}",
    )
    assert [text for text in told if text not in readme] == []


def test_figures_are_those_of_the_real_pair() -> None:
    readme = " ".join((ROOT / "README.md").read_text().split())
    speedups = {row.split("`")[1]: row.split("|")[4].strip() for row in together(GSM8K_RUNS)}
    token = json.loads((GSM8K_RUNS[1] / "summary.json").read_text())["methods"]["token+tokens"]
    told = (
        *(speedups[name].replace(" [", "x [") for name in ("semantic", "semantic+prefix+tokens")),
        f"{token['speedup']:.2f}x {interval(token['speedup_ci95'], '.2f')}",
    )
    assert [text for text in told if text not in readme] == []


def test_tables_in_the_results_are_those_of_their_runs() -> None:
    results = (ROOT / "docs/results.md").read_text()
    folder = ROOT / "docs/results"
    tables = sorted([*folder.glob("*/table.md"), *folder.glob("*/throughput.md")])
    assert RUN / "table.md" in tables
    assert [table.parent.name for table in tables if table.read_text().strip() not in results] == []


def test_both_gsm8k_runs_together() -> None:
    assert [row for row in together(GSM8K_RUNS) if row not in (ROOT / "docs/results.md").read_text()] == []


def together(runs: list[Path]) -> list[str]:
    """Rows of a table of several runs on different problems, for the methods that all have: sums of their sums.

    Intervals: Wilson's for accuracy; for the speed-up the runs' own, in logarithms, weighted by the target's seconds.
    """
    summaries = [json.loads((run / "summary.json").read_text())["methods"] for run in runs]
    rows = []
    for name in summaries[0]:
        figures = [summary[name] for summary in summaries]
        targets = [summary["target"] for summary in summaries]
        count = sum(own["problems"] for own in figures)
        right = round(sum(own["accuracy"] * own["problems"] for own in figures))
        accuracy, spread = share([1.0] * right + [0.0] * (count - right))
        target_s = sum(target["wall_s"] for target in targets)
        ratio = target_s / sum(own["wall_s"] for own in figures)
        half = math.hypot(
            *(
                target["wall_s"] / target_s * math.log(own["speedup_ci95"][1] / own["speedup_ci95"][0]) / 2
                for own, target in zip(figures, targets, strict=True)
            )
        )
        bounds = [ratio * math.exp(-half), ratio * math.exp(half)]
        speed = "1" if name == "target" else f"{ratio:.2f} {interval(bounds, '.2f')}"
        rows.append(
            f"| `{name}` | {right} of {count} | {100 * accuracy:.1f} {interval(list(spread), '.1f', 100)} | {speed} |"
        )
    return rows


def interval(bounds: list[float], digits: str, factor: float = 1.0) -> str:
    low, high = (format(factor * bound, digits) for bound in bounds)
    return f"[{low}, {high}]"
