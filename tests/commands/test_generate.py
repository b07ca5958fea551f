"""`semanticspec generate`: text, JSON, seeds, optimizations, and errors before and after loading."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest

from semanticspec import __version__, demo
from semanticspec.demo.grammar import answer_of
from tests.support.command_line import MIA, run_process


def test_generate_solves_the_readmes_example():
    done = run_process("generate", MIA)
    assert done.returncode == 0, done.stderr
    assert answer_of(done.stdout) is not None
    assert "</think>" in done.stdout
    assert "\x1b" not in done.stdout
    assert "segments accepted" in done.stderr
    assert "lossy" in done.stderr
    assert "warning" not in done.stderr


def test_json_is_one_object_whose_counts_add_up(semanticspec):
    done = semanticspec("generate", MIA, "--json", "--seed", "3")
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


def test_json_says_what_the_result_can_be_repeated_with(semanticspec):
    given = json.loads(
        semanticspec("generate", MIA, "--json", "--seed", "3", "--max-new-tokens", "20").stdout
    )
    assert given["version"] == __version__
    assert given["models"]["target"].keys() == given["models"]["draft"].keys() == {"model", "revision"}
    assert given["models"]["target"]["model"] != given["models"]["draft"]["model"]
    assert (given["rule"]["name"], given["seed"], given["max_new_tokens"]) == ("semantic", 3, 20)
    assert given["optimizations"] == ["partial-acceptance", "token-speculation"]
    assert given["sampling"] == {"temperature": 0.6, "top_p": 0.95}
    other = semanticspec("generate", MIA, "--json", "--rule", "never", "--max-new-tokens", "20")
    other = json.loads(other.stdout)
    assert (other["rule"]["name"], other["optimizations"]) == ("never", [])
    assert other["stats"]["draft_tokens"] == 0


def test_a_prompt_from_standard_input_or_a_file(semanticspec, monkeypatch, tmp_path):
    (tmp_path / "prompt.txt").write_bytes(b"\xef\xbb\xbf" + MIA.encode())
    options = ["--seed", "5", "--max-new-tokens", "20"]
    expected = semanticspec("generate", MIA, *options).stdout
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(MIA.encode()), encoding="ascii"))
    assert semanticspec("generate", "-", *options).stdout == expected
    assert semanticspec("generate", "--file", str(tmp_path / "prompt.txt"), *options).stdout == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ["- 5 + 3 = ?"],
        ["-5"],
        ["-5 + 3 = ?", "--seed", "1"],
        ["--seed", "1", "--", "--odd"],
        ["-x = 3, what is x?"],
    ],
    ids=str,
)
def test_a_prompt_that_begins_with_a_dash(semanticspec, arguments):
    done = (
        semanticspec("generate", *arguments, "--max-new-tokens", "4")
        if "--" not in arguments
        else semanticspec("generate", "--max-new-tokens", "4", *arguments)
    )
    assert done.returncode == 0, done.stderr


def test_a_wrong_option_is_no_prompt(semanticspec):
    done = semanticspec("generate", MIA, "--temprature", "1")
    assert (done.returncode, "No such option" in done.stderr) == (2, True)
    done = semanticspec("generate", MIA, "--target", "-a model", "--draft", "x", "--rule", "token")
    assert "-a model" in done.stderr


def test_what_is_not_utf8_is_told_with_its_place(semanticspec, monkeypatch, tmp_path):
    (tmp_path / "latin1.txt").write_bytes("Combien de caf\xe9s ?".encode("latin1"))
    done = semanticspec("generate", "--file", str(tmp_path / "latin1.txt"))
    assert "latin1.txt is not UTF-8: byte 0xe9 at position 14" in done.stderr
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff")))
    assert "standard input is not UTF-8: byte 0xff at position 0" in semanticspec("generate", "-").stderr
    assert "the prompt is not UTF-8: byte 0xe9" in semanticspec("generate", "caf\udce9").stderr


def test_a_prompt_comes_from_one_place(semanticspec, tmp_path):
    assert (
        "got no prompt; expected a prompt, - for standard input, or --file" in semanticspec("generate").stderr
    )
    assert "got a prompt and --file" in semanticspec("generate", MIA, "--file", "prompt.txt").stderr
    missing = semanticspec("generate", "--file", str(tmp_path / "none.txt"))
    assert (missing.returncode, "none.txt cannot be read: No such file" in missing.stderr) == (2, True)


def test_the_output_ends_before_a_stop_string(semanticspec):
    whole = json.loads(semanticspec("generate", MIA, "--json").stdout)
    word = whole["answer"].split()[0]
    for arguments in (["--stop", word], ["--stop", "not in the text", "--stop", word]):
        stopped = json.loads(semanticspec("generate", MIA, "--json", *arguments).stdout)
        assert stopped["finish_reason"] == "stop"
        assert stopped["text"] == whole["text"].partition(word)[0]


def test_same_seed_same_text_streamed_or_not(semanticspec):
    texts = [semanticspec("generate", MIA, "--seed", "5", *flags).stdout for flags in ([], ["--no-stream"])]
    assert texts[0] == texts[1] != ""


def test_optimizations_are_on_by_default_and_off_in_the_papers_preset(semanticspec):
    def text(*flags: str) -> str:
        return semanticspec("generate", MIA, "--seed", "5", "--rule", "token", *flags).stdout

    assert (
        text()
        == text("--optimizations", "partial-acceptance,token-speculation")
        != text("--optimizations", "none")
    )
    assert text("--preset", "paper") == text("--preset", "paper", "--optimizations", "none")


def test_levers_is_the_old_name_of_optimizations(semanticspec):
    def run(*flags: str) -> tuple[str, list[str]]:
        done = semanticspec("generate", MIA, "--seed", "5", "--rule", "never", *flags)
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr.splitlines()[:-1]

    text, warnings = run("--levers", "none")
    assert (text, []) == run("--optimizations", "none")
    assert warnings == [
        "warning: --levers is now called --optimizations; the old name will be removed in 0.2"
    ]
    assert run("--levers", "prefix,tokens")[0] == run("--optimizations", "default")[0]


def test_a_prompt_outside_the_grammar_is_warned_of(semanticspec):
    done = semanticspec("generate", "What is the capital of France? 東京", "--max-new-tokens", "8")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("warning: the bundled pair only solves small word problems")


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
        (["  "], "prompt is empty"),
        ([MIA, "--temperature", "-1"], "temperature"),
        ([MIA, "--top-p", "0"], "top_p"),
        ([MIA, "--rule", "best"], "rule is 'best'"),
        ([MIA, "--preset", "fast"], "preset is 'fast'"),
        ([MIA, "--strictness", "0"], "strictness"),
        ([MIA, "--optimizations", "overlap,magic"], "optimization is 'magic'"),
        ([MIA, "--target", "/no/such/folder", "--draft", "/no/such"], "no folder or file"),
        ([MIA, "--target", "nobody/no-such-model", "--draft", "nobody/no-such"], "nobody/no-such-model"),
        ([MIA, "--target", "nobody/no-such-model"], "no draft"),
        ([MIA, "--target-probe", "/no/such/probe"], "'/no/such/probe' is neither a folder"),
        ([MIA, "--device", "cuda:99"], "cuda:99"),
        ([MIA, "--draft-device", "cuda:99"], "cuda:99"),
        ([MIA, "--dtype", "float7"], "float7"),
        (
            [MIA, "--draft-engine", "onnx"],
            "no engine 'onnx'; choose from auto, transformers, llama-cpp, vllm",
        ),
        (["word " * 3000], "must hold prompt and answer"),
        ([MIA, "--target-probe", str(demo.draft_probe_path())], "probe"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(semanticspec, arguments, message):
    done = semanticspec("generate", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_folder_that_is_no_model(semanticspec, tmp_path):
    done = semanticspec("generate", MIA, *target_and_draft(tmp_path))
    assert (done.returncode, "is not a model" in done.stderr) == (2, True)


def test_broken_weights_are_one_line_in_a_process_of_its_own(copy):
    (copy / "model.safetensors").write_bytes(b"not safetensors")
    done = run_process("generate", MIA, *target_and_draft(copy))
    assert done.returncode == 2, done.stderr
    assert str(copy) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_pair_without_probes_says_what_to_do(semanticspec):
    done = semanticspec("generate", MIA, *target_and_draft(demo.target_path())[:-2])
    assert done.returncode == 2
    assert "--target-probe" in done.stderr
    assert "--rule top-k" in done.stderr
