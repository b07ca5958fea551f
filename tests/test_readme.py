"""Figures in the README and tables in the results are those of the committed summaries."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from semanticspec.benchmark.statistics import share

ROOT = Path(__file__).parents[1]
RUN = ROOT / "docs/results/demo1000"
REPLAYS = [ROOT / "docs/results/replay-32b-h200", ROOT / "docs/results/replay-32b-h200-loop"]
GSM8K_RUNS = [ROOT / "docs/results/gsm8k", ROOT / "docs/results/gsm8k-28-40"]


def test_figures_of_the_bundled_pair() -> None:
    methods = json.loads((RUN / "summary.json").read_text())["methods"]
    assert f"{methods['target']['problems']} unseen problems" in readme()
    for name in ("semantic+prefix+tokens", "semantic", "random", "semantic-paper"):
        method = methods[name]
        accuracy = f"{method['accuracy']:.1%} ({100 * method['accuracy_diff']:+.1f}"
        spread = interval(method["accuracy_diff_ci95"], "+.1f", 100)
        per_token = method["speedup"] * method["length_ratio"]
        assert f"| {speedup(method)} | {per_token:.2f}x | {accuracy} {spread}) |" in readme()


def test_figures_of_the_real_pair() -> None:
    rows = {row.split("`")[1]: [cell.strip() for cell in row.split("|")] for row in together(GSM8K_RUNS)}
    num_target = rows["target"][2].split()[0]
    for name in ("semantic", "semantic+prefix+tokens"):
        speed = rows[name][4].replace(" [", "x [")
        assert f"| {speed} | {rows[name][5]}x | {rows[name][2]}; target {num_target} |" in readme()
    lossless = json.loads((GSM8K_RUNS[1] / "summary.json").read_text())["methods"]["token+tokens"]
    assert f"| {lossless['problems']} of these problems |" in readme()
    per_token = lossless["speedup"] * lossless["length_ratio"]
    assert f"| lossless | {speedup(lossless)} | {per_token:.2f}x |" in readme()


def test_figures_of_the_replay() -> None:
    case = json.loads((REPLAYS[1] / "summary.json").read_text())["cases"]["plain+default, 0% kept"]
    assert f"| {case['speedup']:.2f}x {interval(case['speedup_range'], '.2f')} |" in readme()


@pytest.mark.parametrize("replay", REPLAYS, ids=lambda folder: folder.name)
def test_the_table_of_a_replay_is_that_of_its_summary(replay: Path) -> None:
    results = (ROOT / "docs/results.md").read_text()
    missing = []
    for case in json.loads((replay / "summary.json").read_text())["cases"].values():
        speed = f"{case['speedup']:.2f} {interval(case['speedup_range'], '.2f')}"
        speed = "1" if case["counts"]["drafted_tokens"] == 0 else speed
        per_token = [
            case[phase] / case["counts"]["num_tokens"] for phase in ("draft_s", "verify_s", "rewrite_s")
        ]
        figures = " | ".join(f"{1000 * seconds:.1f}" for seconds in (case["seconds_per_token"], *per_token))
        if f"| {speed} | {figures} |" not in results:
            missing.append(speed)
    assert missing == []


def test_the_commands_stand_at_the_top() -> None:
    top = readme().splitlines()[:60]
    assert any(line.startswith("make demo ") for line in top)
    assert any(line.startswith("make test ") for line in top)


def test_tables_in_the_results_are_those_of_their_runs() -> None:
    results = (ROOT / "docs/results.md").read_text()
    folder = ROOT / "docs/results"
    tables = sorted([*folder.glob("*/table.md"), *folder.glob("*/throughput.md")])
    assert RUN / "table.md" in tables
    assert [table.parent.name for table in tables if table.read_text().strip() not in results] == []


def test_both_gsm8k_runs_together() -> None:
    assert [row for row in together(GSM8K_RUNS) if row not in (ROOT / "docs/results.md").read_text()] == []


def together(runs: list[Path]) -> list[str]:
    """Returns the rows of a table that sums several runs on different problems, for the methods of the first run.

    Intervals: Wilson's for accuracy; for the speed-up those of the runs, in logarithms, weighted by target seconds.
    """
    summaries = [json.loads((run / "summary.json").read_text())["methods"] for run in runs]
    rows = []
    for name in summaries[0]:
        figures = [summary[name] for summary in summaries]
        targets = [summary["target"] for summary in summaries]
        count = sum(own["problems"] for own in figures)
        right = round(sum(own["accuracy"] * own["problems"] for own in figures))
        accuracy, spread = share([1.0] * right + [0.0] * (count - right))
        target_s, own_s = (sum(part["wall_s"] for part in parts) for parts in (targets, figures))
        target_tokens, own_tokens = (sum(part["tokens"] for part in parts) for parts in (targets, figures))
        ratio, per_token = target_s / own_s, target_s / target_tokens / (own_s / own_tokens)
        half = math.hypot(
            *(
                target["wall_s"] / target_s * math.log(own["speedup_ci95"][1] / own["speedup_ci95"][0]) / 2
                for own, target in zip(figures, targets, strict=True)
            )
        )
        bounds = [ratio * math.exp(-half), ratio * math.exp(half)]
        speed = "1 | 1" if name == "target" else f"{ratio:.2f} {interval(bounds, '.2f')} | {per_token:.2f}"
        rows.append(
            f"| `{name}` | {right} of {count} | {100 * accuracy:.1f} {interval(list(spread), '.1f', 100)} | {speed} |"
        )
    return rows


def readme() -> str:
    return (ROOT / "README.md").read_text()


def speedup(method: dict[str, Any]) -> str:
    return f"{method['speedup']:.2f}x {interval(method['speedup_ci95'], '.2f')}"


def interval(bounds: list[float], digits: str, factor: float = 1.0) -> str:
    low, high = (format(factor * bound, digits) for bound in bounds)
    return f"[{low}, {high}]"
