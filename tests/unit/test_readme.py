"""The README's figures are those of the run that it names."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_figures_are_those_of_the_run() -> None:
    readme = " ".join((ROOT / "README.md").read_text().split())
    methods = json.loads((ROOT / "docs/results/bundled.json").read_text())["methods"]
    semantic, random = methods["semantic"], methods["random"]
    told = (
        f"{semantic['problems']} unseen problems",
        f"**{semantic['speedup']:.2f}x** {interval(semantic['speedup_ci95'], '.2f')}",
        f"accuracy {semantic['accuracy']:.1%} against {methods['target']['accuracy']:.1%}",
        f"({100 * semantic['accuracy_diff']:+.1f} {interval(semantic['accuracy_diff_ci95'], '+.1f', 100)} points)",
        f"The draft alone solves {methods['draft']['accuracy']:.1%}",
        f"({random['draft_token_share']:.0%} against {semantic['draft_token_share']:.0%})",
        f"solves {random['accuracy']:.1%}",
        f"({100 * random['accuracy_diff_to_semantic']:+.1f} "
        f"{interval(random['accuracy_diff_to_semantic_ci95'], '+.1f', 100)} points to semantic)",
    )
    assert [text for text in told if text not in readme] == []


def interval(bounds: list[float], digits: str, factor: float = 1.0) -> str:
    low, high = (format(factor * bound, digits) for bound in bounds)
    return f"[{low}, {high}]"
