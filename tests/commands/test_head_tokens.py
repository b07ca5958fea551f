"""`semanticspec head-tokens`: counts texts and writes the tokens to keep."""

from __future__ import annotations

from pathlib import Path

from semanticspec import demo
from semanticspec.engines.runtime.head_tokens import HeadTokens
from tests.support.command_line import CommandLine


def test_it_writes_a_file_that_engines_read(semanticspec: CommandLine, tmp_path: Path) -> None:
    text, out = tmp_path / "text.txt", tmp_path / "tokens.txt"
    text.write_text("Mia has 14 pens.")
    draft = str(demo.draft_path())
    done = semanticspec("head-tokens", str(text), "--draft", draft, "--size", "60", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "kept 60 tokens" in done.stderr
    assert len(HeadTokens.read(str(out), 10_000).ids) == 60


def test_a_missing_text_is_one_line(semanticspec: CommandLine, tmp_path: Path) -> None:
    draft, missing = str(demo.draft_path()), tmp_path / "missing.jsonl"
    out = str(tmp_path / "tokens.txt")
    done = semanticspec("head-tokens", str(missing), "--draft", draft, "--size", "60", "--out", out)
    assert done.returncode == 2
    assert f"there is no file {missing}" in done.stderr
    assert not (tmp_path / "tokens.txt").exists()
