"""`semanticspec doctor` on the bundled pair."""

from __future__ import annotations

import json

from tests.support.command_line import CommandLine


def test_the_bundled_pair_is_examined(semanticspec: CommandLine):
    done = semanticspec("doctor", "--seconds", "2", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert {finding["level"] for finding in report["findings"]} == {"ok"}
    assert set(report["costs"]["verify_s"]) == {"1", "8", "32"}
    assert report["limit_speedup"] > 0
    assert report["verdict"][0].endswith("with this pair on this machine.")


def test_a_model_that_does_not_exist_is_one_line(semanticspec: CommandLine):
    done = semanticspec("doctor", "--target", "/nowhere", "--draft", "/nowhere")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
