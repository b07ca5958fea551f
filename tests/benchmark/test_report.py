"""Reports: every subset of methods, and published results."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from semanticspec.benchmark.rows import Row
from semanticspec.benchmark.session import remake_report
from semanticspec.commands.main import app
from semanticspec.errors import BenchmarkError
from semanticspec.records import Segment
from tests.support.benchmarks import make_folder, make_row

PUBLISHED = Path(__file__).parents[2] / "docs/results/gsm8k-28-40"
NUM_PROBLEMS = 3


def rows_of(method: str) -> list[Row]:
    """Plausible rows: the draft alone, or judged segments for all methods but the target."""
    if method.startswith(("target", "hf-")):
        return [make_row(str(i), method, rewrite_s=2.0) for i in range(NUM_PROBLEMS)]
    segments = (
        Segment("draft", "", 40, 0.5, 0.5, True, "semantic"),
        Segment("draft", "", 20, 0.1, 0.5, False),
    )
    judged = {
        "wall_s": 1.0,
        "draft_tokens": 40,
        "drafted_tokens": 60,
        "segments_accepted": 1,
        "segments_rejected": 1,
        "draft_s": 0.3,
        "verify_s": 0.2,
        "rewrite_s": 0.4,
        "segments": segments,
    }
    return [make_row(str(i), method, **judged) for i in range(NUM_PROBLEMS)]


@pytest.mark.parametrize(
    "methods",
    [
        ["target"],
        ["hf-target"],
        ["semantic"],
        ["target", "semantic"],
        ["token"],
        ["target", "token+token-speculation"],
        ["target", "token+token-speculation", "semantic+default"],
        ["semantic+default", "random+default"],
        ["target", "always"],
        ["target", "semantic@0.5", "random@0.5", "semantic@2", "random@2"],
        ["semantic@0.5", "random@0.5"],
        ["target", "semantic+prefix+tokens", "token+tokens"],
        ["target", "a-method-of-another-version"],
    ],
    ids=",".join,
)
def test_every_subset_of_methods_has_a_report(methods, tmp_path):
    make_folder(tmp_path, [row for method in methods for row in rows_of(method)])
    remake_report(tmp_path, None)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert list(summary["methods"]) == methods
    page = (tmp_path / "report.html").read_text()
    assert all(f'<th scope="row">{method}</th>' in page for method in methods)
    lost = any(
        "target" in methods and name.startswith(("semantic", "always")) and "+" not in name
        for name in methods
    )
    assert ("Where time is lost" in page) is lost
    assert (tmp_path / "table.md").read_text().count("\n") == 2 + len(methods)


def test_requests_that_all_fail_have_a_report(tmp_path):
    failed = {"right": False, "finish_reason": "error", "num_tokens": 0, "note": "PromptError: too long"}
    rows = [make_row(str(i), method, **failed) for i in range(3) for method in ("target", "semantic")]
    make_folder(tmp_path, rows)
    remake_report(tmp_path, None)
    assert json.loads((tmp_path / "summary.json").read_text())["methods"]["semantic"]["failed_share"] == 1


def test_without_a_problem_that_every_method_has_finished_there_is_no_report(tmp_path, capsys):
    make_folder(tmp_path, [make_row("p"), make_row("q", "semantic")])
    remake_report(tmp_path, None)
    assert "no problem is finished by every method yet (target, semantic)" in capsys.readouterr().err
    remake_report(tmp_path, ["target"])
    assert json.loads((tmp_path / "summary.json").read_text())["problems"] == 1
    with pytest.raises(BenchmarkError, match=r"has no rows of 'draft'; expected any of target, semantic"):
        remake_report(tmp_path, ["draft"])


def test_the_published_report_is_reproduced(tmp_path):
    """Old method names are reported as they are, and the same rows give the same figures."""
    folder = tmp_path / "copy"
    shutil.copytree(PUBLISHED, folder)
    done = CliRunner().invoke(app, ["bench", "report", str(folder)])
    assert done.exit_code == 0, done.output
    before, after = (json.loads((path / "summary.json").read_text()) for path in (PUBLISHED, folder))
    assert "semantic+prefix+tokens" in after["methods"]
    assert set(after["methods"]) == set(before["methods"])
    for name, figures in before["methods"].items():
        assert after["methods"][name].keys() >= figures.keys()
        for key, value in figures.items():
            assert after["methods"][name][key] == pytest.approx(value), (name, key)
    assert after["costs"].pop("measured_on") == before["costs"].pop("measured_on")
    assert after["costs"] == pytest.approx(before["costs"])
