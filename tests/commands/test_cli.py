"""The command line as a user meets it: a process, its output, its exit code."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from semanticspec import demo
from semanticspec.demo.grammar import answer_of

MIA = "Mia has 14 pens. Mia buys 23 more. Then Mia doubles the pens. How many pens does Mia have?"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from semanticspec.commands.main import main; main()", *arguments]
    settings = os.environ | {"NO_COLOR": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "160"} | environment
    return subprocess.run(command, capture_output=True, text=True, env=settings, timeout=300)


def test_generate_solves_the_readmes_example():
    done = run("generate", MIA)
    assert done.returncode == 0, done.stderr
    assert answer_of(done.stdout) is not None
    assert "</think>" in done.stdout
    assert "\x1b" not in done.stdout
    assert "segments accepted" in done.stderr
    assert "lossy" in done.stderr
    assert "warning" not in done.stderr


def test_json_is_one_object_whose_counts_add_up():
    done = run("generate", MIA, "--json", "--seed", "3")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    stats = result["stats"]
    kept = [s for s in result["segments"] if s["accepted"] is not False]
    assert "".join(s["text"] for s in kept) == result["text"]
    assert sum(s["num_tokens"] for s in kept) == stats["num_tokens"]
    assert sum(s["num_tokens"] for s in kept if s["author"] == "draft") == stats["draft_tokens"]
    phases = sum(stats[name] for name in ("draft_s", "verify_s", "rewrite_s", "probe_s"))
    assert 0 < phases <= stats["wall_s"]
    for segment in result["segments"]:
        assert segment["author"] in ("draft", "target")
        if segment["reason"] == "semantic":
            assert 0 < segment["p_target"] <= 1
            assert 0 < segment["p_draft"] <= 1


def test_same_seed_same_text_streamed_or_not():
    texts = [run("generate", MIA, "--seed", "5", *flags).stdout for flags in ([], ["--no-stream"])]
    assert texts[0] == texts[1]


def test_optimizations_are_on_by_default_and_off_in_the_papers_preset():
    def text(*flags: str) -> str:
        return run("generate", MIA, "--seed", "5", "--rule", "never", *flags).stdout

    assert (
        text()
        == text("--optimizations", "partial-acceptance,token-speculation")
        != text("--optimizations", "none")
    )
    assert text("--preset", "paper") == text("--preset", "paper", "--optimizations", "none")


def test_a_prompt_outside_the_grammar_is_warned_of():
    done = run("generate", "What is the capital of France? 東京", "--max-new-tokens", "8")
    assert done.returncode == 0, done.stderr
    assert "warning" in done.stderr


def test_demo_ends_with_a_table(tmp_path):
    out = tmp_path / "deep" / "figures.json"
    done = run("demo", "-n", "2", "--methods", "target,semantic,token", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "speed-up" in done.stdout
    methods = json.loads(out.read_text())["methods"]
    assert set(methods) == {"target", "semantic", "token"}
    assert methods["target"]["speedup"] == 1
    assert methods["target"]["draft_token_share"] == 0


@pytest.fixture
def copy(tmp_path):
    """A copy of the bundled target, to break."""
    folder = tmp_path / "model"
    shutil.copytree(demo.target_path(), folder)
    return folder


def target_and_draft(folder: Path) -> list[str]:
    return ["--target", str(folder), "--draft", str(demo.draft_path()), "--rule", "top-k"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "  "], "prompt is empty"),
        (["generate", MIA, "--temperature", "-1"], "temperature"),
        (["generate", MIA, "--top-p", "0"], "top_p"),
        (["generate", MIA, "--rule", "best"], "rule is 'best'"),
        (["generate", MIA, "--preset", "fast"], "preset is 'fast'"),
        (["generate", MIA, "--strictness", "0"], "strictness"),
        (["generate", MIA, "--optimizations", "prefix,magic"], "optimization is 'magic'"),
        (["generate", MIA, "--target", "/no/such/folder", "--draft", "/no/such"], "no folder or file"),
        (
            ["generate", MIA, "--target", "nobody/no-such-model", "--draft", "nobody/no-such"],
            "nobody/no-such-model",
        ),
        (["generate", MIA, "--target", "nobody/no-such-model"], "no draft"),
        (["generate", MIA, "--target-probe", "/no/such/probe"], "neither a folder"),
        (["generate", MIA, "--device", "cuda:99"], "cuda:99"),
        (["generate", MIA, "--dtype", "float7"], "float7"),
        (["generate", "word " * 3000], "context holds"),
        (["generate", MIA, "--target-probe", str(demo.draft_probe_path())], "probe"),
        (["demo", "--methods", "target,magic"], "'magic'"),
        (["demo", "--split", "train"], "'train'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message):
    done = run(*arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


def test_a_folder_that_is_no_model(tmp_path):
    done = run("generate", MIA, *target_and_draft(tmp_path))
    assert (done.returncode, "is no model" in done.stderr) == (2, True)
    assert "Traceback" not in done.stderr


def test_broken_weights(copy):
    (copy / "model.safetensors").write_bytes(b"not safetensors")
    done = run("generate", MIA, *target_and_draft(copy))
    assert done.returncode == 2, done.stderr
    assert str(copy) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_pair_without_probes_says_what_to_do():
    done = run("generate", MIA, *target_and_draft(demo.target_path())[:-2])
    assert done.returncode == 2
    assert "--target-probe" in done.stderr
    assert "--rule top-k" in done.stderr


def test_an_engine_that_is_not_there_is_told_in_one_line():
    done = run("generate", MIA, "--draft-engine", "onnx")
    assert done.returncode == 2
    assert done.stderr == "error: there is no engine 'onnx'; choose from transformers, llama-cpp, vllm\n"
