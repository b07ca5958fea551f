"""`semanticspec probe collect`: given traces, full disks, killed processes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from semanticspec.commands.probe import probe_app
from semanticspec.errors import ConfigError
from semanticspec.training.data.storage import Collection
from tests.support.collecting import (
    assert_same,
    make_pair,
)


def test_the_command_reads_traces_and_reports_what_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("semanticspec.training.stages.load_models", lambda *_, **__: make_pair())
    problems = tmp_path / "problems.jsonl"
    rows = ({"id": f"p{i}", "prompt": "a", "solution": "a\n\nb\n\nab"} for i in range(6))
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = tmp_path / "data"
    command = f"collect --out {data} --problems {problems} --traces solution --samples 4 --max-contexts 2"
    command += " --max-trace-tokens 40 --loop-share 0.5 --one-trace"
    for there in (0, 6):
        result = CliRunner().invoke(probe_app, command.split())
        assert result.exit_code == 0, (result.output, result.exception)
        told = " ".join(capfd.readouterr().err.split() + result.output.split())
        assert f"{6 - there} problems collected ({there} existed already)" in told
    shards = list(Collection(data))
    origins = {context.origin for shard in shards for context in shard.contexts}
    assert origins == {"loop", "given"}
    assert Collection(data).manifest.config["one_trace"] is True
    result = CliRunner().invoke(probe_app, [*command.split(), "--traces", "proof"])
    assert isinstance(result.exception, ConfigError)
    assert "'proof'" in str(result.exception)


def test_the_preset_one_context_collects_little_on_each_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pair = make_pair()
    monkeypatch.setattr("semanticspec.training.stages.load_models", lambda *_, **__: pair)
    problems, answers = tmp_path / "problems.jsonl", tmp_path / "answers"
    problems.write_text("".join(json.dumps({"id": f"p{i}", "prompt": "a"}) + "\n" for i in range(6)))
    answers.mkdir()
    fingerprint = pair.target.vocabulary.fingerprint
    (answers / "settings.json").write_text(json.dumps({"model": "t", "fingerprint": fingerprint}))
    ids = pair.target.vocabulary.encode("a\n\nb\n\nab")
    lines = ({"problem_id": f"p{i}", "sample": 0, "prompt": "a", "token_ids": ids} for i in range(4))
    (answers / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = (
        f"collect --out {tmp_path / 'data'} --problems {problems} --preset one-context --answers {answers}"
    )
    command += " --samples 3 --max-trace-tokens 40"
    result = CliRunner().invoke(probe_app, command.split())
    assert result.exit_code == 0, (result.output, result.exception)
    assert "4 of 6 problems have answers" in capfd.readouterr().err + result.output
    collection = Collection(tmp_path / "data")
    config = collection.manifest.config
    assert [
        config[name] for name in ("num_samples", "max_contexts", "one_trace", "max_context_segments")
    ] == [
        3,
        1,
        True,
        12,
    ]
    assert [len(shard.contexts) for shard in collection] == [1] * 6


def test_a_full_disk_ends_the_command_with_one_line(tmp_path: Path) -> None:
    script = (
        "import errno, os, sys; import semanticspec.training.stages as stages; "
        "sys.path.insert(0, sys.argv.pop(1)); from tests.support import collecting; "
        "stages.load_models = lambda *_, **__: collecting.make_pair()\n"
        "def full(_): raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "sync, calls = os.fsync, []\n"
        "os.fsync = lambda d: (calls.append(d), full(d) if len(calls) > 3 else sync(d))\n"
        "from semanticspec.commands.main import main; main()"
    )
    problems = tmp_path / "problems.jsonl"
    problems.write_text("".join(json.dumps({"id": i, "prompt": "a"}) + "\n" for i in range(4)))
    arguments = ["probe", "collect", "--out", str(tmp_path / "data"), "--problems", str(problems)]
    command = [
        sys.executable,
        "-c",
        script,
        str(Path(__file__).parents[2]),
        *arguments,
        "--max-trace-tokens",
        "40",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "1 finished problems are kept" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "data" / "problems").glob(".*"))


@pytest.mark.slow
def test_sigkill_loses_and_repeats_no_problem(tmp_path: Path) -> None:
    """With the bundled pair, two problems at a time; killed when the first of five is stored."""

    def start(folder: str) -> subprocess.Popen[str]:
        arguments = (
            f"probe collect --num-problems 5 --samples 4 --max-contexts 2 --concurrency 2 --out {folder}"
        )
        command = [
            sys.executable,
            "-c",
            "from semanticspec.commands.main import main; main()",
            *arguments.split(),
        ]
        return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)

    whole, part = tmp_path / "whole", tmp_path / "part"
    running = start(str(whole))
    assert running.wait(timeout=300) == 0, running.communicate()[1]
    running = start(str(part))
    while not list(part.glob("problems/*.parquet")):
        assert running.poll() is None
        time.sleep(0.005)
    running.kill()
    running.wait()
    kept = len(Collection(part))
    assert 0 < kept < 5
    running = start(str(part))
    _, told = running.communicate(timeout=300)
    assert running.returncode == 0, told
    assert f"{5 - kept} problems collected ({kept} existed already)" in told
    assert "s per context" in told
    assert_same(Collection(part), Collection(whole))
