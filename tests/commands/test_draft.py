"""`semanticspec draft align`: errors before a model is loaded, and a small run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from semanticspec import demo
from semanticspec.loading import load_model
from tests.support.command_line import CommandLine

pytest.importorskip("peft", reason="needs peft, of the extra align")

MODELS = ("--target", str(demo.target_path()), "--draft", str(demo.draft_path()))


def test_a_small_run_prints_figures_before_and_after(semanticspec: CommandLine, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    sizes = ("--num-problems", "20", "--max-new-tokens", "40", "--epochs", "1", "--rank", "4")
    done = semanticspec("draft", "align", *MODELS, "--problems", "demo", *sizes, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "Probability that a token is kept" in done.stdout
    assert "--draft-engine transformers:adapter=" in done.stderr
    adapter, merged = f"{out}/adapter", str(tmp_path / "merged")
    done = semanticspec("draft", "merge", "--draft", MODELS[3], "--adapter", adapter, "--out", merged)
    assert done.returncode == 0, done.stderr
    digest = json.loads(Path(adapter, "alignment.json").read_text())["adapter"]
    assert load_model(merged).engine.info.adapter == digest
    again = ("draft", "merge", "--draft", merged, "--adapter", adapter, "--out", str(tmp_path / "again"))
    assert "contain an adapter already" in semanticspec(*again).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--loss", "dpo"), "--loss is 'dpo'"),
        (("--gguf", "missing.gguf"), "there is no file missing.gguf"),
        (("--template", "no braces"), "the prompt template is 'no braces'"),
    ],
)
def test_wrong_options_are_one_line(
    semanticspec: CommandLine, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    out = tmp_path / "out"
    done = semanticspec("draft", "align", *MODELS, "--problems", "demo", *arguments, "--out", str(out))
    assert done.returncode == 2
    assert message in done.stderr
    assert not out.exists()
