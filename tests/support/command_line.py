"""Runs the command line, in a process of its own or in this one."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

from semanticspec.commands.main import main

MIA = "Mia has 14 pens. Mia buys 23 more. Then Mia doubles the pens. How many pens does Mia have?"


@dataclass(frozen=True)
class Done:
    """What a command has left: its exit code and its output."""

    returncode: int
    stdout: str
    stderr: str


class CommandLine:
    """Runs `semanticspec ARGUMENTS` in this process, which is faster once torch is imported."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str) -> Done:
        self._monkeypatch.setattr(sys, "argv", ["semanticspec", *arguments])
        self._capsys.readouterr()
        try:
            main()
            code: object = 0
        except SystemExit as exit_:
            code = exit_.code
        output = self._capsys.readouterr()
        assert isinstance(code, int)
        return Done(code, output.out, output.err)


def run_process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m semanticspec ARGUMENTS`."""
    settings = os.environ | {"NO_COLOR": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "160"} | environment
    command = [sys.executable, "-m", "semanticspec", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=settings, timeout=300)
