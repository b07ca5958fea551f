"""`semanticspec prepare`: the plan, and wrong settings. What a run does: tests/training/test_pipeline.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.command_line import CommandLine
from tests.support.demo_problems import write_problems

SETTINGS = """
[problems]
source = "problems.jsonl"

[collect]
num_samples = 4
max_contexts = 2
max_trace_tokens = 40
"""


def test_the_plan_tells_tokens_time_and_disk_and_changes_nothing(
    semanticspec: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "pair.toml").write_text(SETTINGS + "[align]\n")
    write_problems(tmp_path / "problems.jsonl")
    out = tmp_path / "out"
    done = semanticspec("prepare", str(tmp_path / "pair.toml"), "--out", str(out), "--plan")
    assert done.returncode == 0, done.stderr
    for text in ("answers of the target", "training of the draft", "collecting", "MiB", "min"):
        assert text in done.stdout
    assert not out.exists()


@pytest.mark.parametrize(
    ("pair", "align", "message"),
    [
        ('draft = "d.gguf"\ntarget = "t"', "", "cannot be trained; set draft in [align]"),
        ('draft = "d"\ntarget = "t"', 'draft = "e"', "the pair's draft is no GGUF file"),
        ("", '[align.training]\nloss = "dpo"', "align.training.loss"),
    ],
)
def test_wrong_settings_are_one_line(
    semanticspec: CommandLine, tmp_path: Path, pair: str, align: str, message: str
) -> None:
    (tmp_path / "pair.toml").write_text(f"[pair]\n{pair}\n[align]\n{align}\n")
    done = semanticspec("prepare", str(tmp_path / "pair.toml"), "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert message in done.stderr
