"""`semanticspec demo`: a table, a file, and errors."""

from __future__ import annotations

import json

import pytest


def test_demo_ends_with_a_table_and_writes_it_as_json(semanticspec, tmp_path):
    out = tmp_path / "deep" / "figures.json"
    done = semanticspec("demo", "-n", "2", "--methods", "target,semantic,token", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "speed-up" in done.stdout
    content = json.loads(out.read_text())
    assert (content["pair"], content["split"]) == ("bundled", "test")
    methods = content["methods"]
    assert set(methods) == {"target", "semantic", "token"}
    assert methods["target"]["speedup"] == 1
    assert methods["target"]["draft_token_share"] == 0


def test_the_output_length_can_be_limited(semanticspec, tmp_path):
    out = tmp_path / "figures.json"
    methods = ["--methods", "target", "--max-new-tokens", "4"]
    done = semanticspec("demo", "-n", "2", *methods, "--quiet", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())["methods"]["target"]["truncated_share"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "target,magic"], "'magic'"),
        (["--methods", " , "], "--methods is empty"),
        (["--out", "/etc/passwd/figures.json"], "is below /etc/passwd, which is a file"),
        (["--out", "/tmp"], "--out /tmp is a folder; expected a file"),
        (["--split", "train"], "--split is 'train'; expected test or validation"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(semanticspec, arguments, message):
    done = semanticspec("demo", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
