"""The README's figures are those of the run that it names, and its tables in the docs are that run's."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
RUN = ROOT / "docs/results/demo1000"


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


def test_tables_in_the_results_are_those_of_their_runs() -> None:
    results = (ROOT / "docs/results.md").read_text()
    tables = sorted((ROOT / "docs/results").glob("*/table.md"))
    assert RUN / "table.md" in tables
    assert [table.parent.name for table in tables if table.read_text().strip() not in results] == []


def interval(bounds: list[float], digits: str, factor: float = 1.0) -> str:
    low, high = (format(factor * bound, digits) for bound in bounds)
    return f"[{low}, {high}]"
