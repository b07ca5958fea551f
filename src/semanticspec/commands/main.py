"""The command line: registers the commands, and reports errors and warnings in one line each."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, NoReturn, TextIO

import typer

import semanticspec
from semanticspec.commands.bench import bench_app
from semanticspec.commands.demo import demo_command
from semanticspec.commands.demo_registration import register_demo
from semanticspec.commands.doctor import doctor_command
from semanticspec.commands.draft import draft_app
from semanticspec.commands.generate import generate_command
from semanticspec.commands.head_tokens import head_tokens_command
from semanticspec.commands.option_groups import option
from semanticspec.commands.prepare import prepare_command
from semanticspec.commands.probe import probe_app
from semanticspec.commands.prompt_argument import PromptCommand
from semanticspec.commands.serve import serve_command
from semanticspec.errors import SemanticSpecError, os_error_line
from semanticspec.output.console import use_safe_characters

_READER_GONE = 141  # as a shell reports SIGPIPE
_PACKAGE_FOLDER = Path(semanticspec.__file__).parent

app = typer.Typer(
    name="semanticspec",
    help="Semantic-aware speculative decoding for reasoning models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("generate", cls=PromptCommand)(generate_command)
app.command("demo")(demo_command)
app.command("serve")(serve_command)
app.command("doctor")(doctor_command)
app.command("head-tokens")(head_tokens_command)
app.command("prepare")(prepare_command)
app.add_typer(bench_app, name="bench")
app.add_typer(probe_app, name="probe")
app.add_typer(draft_app, name="draft")


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, option("Print the version and exit.", "--version")] = False) -> None:
    if version:
        typer.echo(f"semanticspec {semanticspec.__version__}")
        raise typer.Exit


def main() -> None:
    """Runs the `semanticspec` command."""
    run(app)


def run(command: typer.Typer | Callable[..., None]) -> None:
    """Runs a command. Expected errors end in one line and exit code 2, Ctrl-C in exit code 130.

    Files that cannot be read or written are expected errors, also where standard output is one of them. If the reader
    of a pipe has gone, the command ends without a message, as other commands do.
    """
    use_safe_characters()
    _show_warnings_as_lines()
    register_demo()
    try:
        try:
            command() if isinstance(command, typer.Typer) else typer.run(command)
        finally:
            sys.stdout.flush()  # here, where a full disk can still be reported
    except SemanticSpecError as error:
        _fail(str(error))
    except BrokenPipeError:
        _drop_output()
        raise SystemExit(_READER_GONE) from None
    except OSError as error:
        if error.errno is None:
            raise
        _drop_output()
        _fail(os_error_line(error))
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _fail(message: str) -> NoReturn:
    typer.secho(f"error: {message}", fg="red", err=True)
    raise SystemExit(2) from None


def _drop_output() -> None:
    """Points standard output at the null device, so that Python does not fail again when it flushes at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_warnings_as_lines() -> None:
    """Prints each warning of this package once and as one line; other warnings stay as Python prints them."""
    show_with_location = warnings.showwarning
    shown: set[str] = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not Path(filename).is_relative_to(_PACKAGE_FOLDER):
            show_with_location(message, category, filename, lineno, file, line)
        elif str(message) not in shown:
            shown.add(str(message))
            typer.secho(f"warning: {message}", fg="yellow", err=True)

    warnings.showwarning = show
