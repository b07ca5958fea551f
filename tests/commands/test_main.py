"""The command line as a whole: exit codes, errors and warnings of one line, light imports."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

import semanticspec as package
from semanticspec.commands.main import run
from semanticspec.errors import ConfigError
from tests.support.command_line import run_process

HEAVY = ("torch", "transformers", "numpy", "fastapi", "uvicorn", "pyarrow")


def test_python_m_semanticspec_is_the_command_line():
    done = run_process("--version")
    assert (done.returncode, done.stdout) == (0, f"semanticspec {package.__version__}\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        *(
            [*command.split(), "--help"]
            for command in (
                "generate",
                "demo",
                "serve",
                "bench",
                "bench replay",
                "probe collect",
                "probe train",
            )
        ),
        ["generate", "Hello", "--rule", "best"],
        ["generate", "Hello", "--engine", "onnx"],
        ["generate", " "],
        ["demo", "--split", "train"],
        ["bench"],
        ["bench", "--out", "never-made", "--sweep", "floor=1"],
        ["bench", "replay"],
        ["probe", "train", "--role", "judge", "--data", "data", "--out", "out"],
    ],
    ids=" ".join,
)
def test_help_and_wrong_options_import_nothing_heavy(arguments):
    code = (
        "import sys\n"
        "from semanticspec.commands.main import main\n"
        "try:\n    main()\n"
        f"finally:\n    print('imported:', [name for name in {HEAVY} if name in sys.modules], file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == (0 if "--help" in arguments else 2), done.stderr
    assert done.stderr.splitlines()[-1] == "imported: []"


def test_errors_are_one_line_and_exit_code_2(monkeypatch, capsys):
    def command() -> None:
        raise ConfigError("port is 'many'; expected a number")

    monkeypatch.setattr(sys, "argv", ["command"])
    with pytest.raises(SystemExit) as exit_:
        run(command)
    assert exit_.value.code == 2
    assert capsys.readouterr().err == "error: port is 'many'; expected a number\n"


def test_ctrl_c_ends_with_exit_code_130_and_no_traceback():
    code = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"
    script = (
        "import os, signal, typer\n"
        "from semanticspec.commands.main import run\n"
        f"def command() -> None:\n    {code}\n"
        "run(command)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGINT, "", "")


def test_warnings_of_this_package_are_one_line(semanticspec):
    done = semanticspec("generate", " ", "--optimizations", "prefix,tokens")
    assert done.returncode == 2
    first, second, error = done.stderr.splitlines()
    assert first.startswith("warning: the optimization 'prefix' is now called 'partial-acceptance'; ")
    assert second.startswith("warning: the optimization 'tokens' is now called 'token-speculation'; ")
    assert error.startswith("error: the prompt is empty")


def test_warnings_of_other_packages_keep_their_place():
    script = (
        "import typer, warnings\n"
        "from semanticspec.commands.main import run\n"
        "def command() -> None:\n    warnings.warn_explicit('old', FutureWarning, '/elsewhere.py', 7)\n"
        "run(command)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stderr == "/elsewhere.py:7: FutureWarning: old\n"


def test_a_full_disk_is_one_line():
    for arguments in (["--help"], ["probe", "list"], ["generate", "-5", "--max-new-tokens", "4"]):
        with Path("/dev/full").open("w") as full:
            command = [sys.executable, "-m", "semanticspec", *arguments]
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=120)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1] == "error: cannot write to the output: No space left on device"
        assert "Traceback" not in done.stderr


def test_a_file_that_cannot_be_written_is_one_line(monkeypatch, capsys, tmp_path):
    def command() -> None:
        (tmp_path / "no" / "file").write_text("")

    monkeypatch.setattr(sys, "argv", ["command"])
    with pytest.raises(SystemExit) as exit_:
        run(command)
    assert exit_.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/no/file: No such file or directory; check")


@pytest.mark.parametrize("command", ["", "generate", "bench", "probe train"])
def test_an_ascii_terminal_prints_help(command):
    done = run_process(*command.split(), "--help", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", LC_ALL="C")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert "Usage" in done.stdout


def test_an_ascii_terminal_prints_an_answer():
    done = run_process(
        "generate",
        "What is 東京?",
        "--max-new-tokens",
        "4",
        PYTHONUTF8="0",
        PYTHONCOERCECLOCALE="0",
        LC_ALL="C",
    )
    assert done.returncode == 0, done.stderr
    assert "tokens in" in done.stderr
