"""Dataclasses as groups of options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from semanticspec.commands.option_groups import expand_options, option, option_in


@dataclass(frozen=True)
class Place:
    city: Annotated[str, option_in("Place")("Name of the city.")] = "Basel"
    zip_code: Annotated[int | None, option("Its code.", "--zip", min=1, default="of the city")] = None


@dataclass(frozen=True)
class Size:
    width: Annotated[int, option("In metres.")] = 1
    height: Annotated[int, option("In metres.")] = 2


def application(*, without: tuple[str, ...] = ()) -> tuple[typer.Typer, list[object]]:
    """A command with two groups, and the list of what it was called with."""
    app, calls = typer.Typer(), []

    @app.command()
    @expand_options(without=without)
    def build(
        name: Annotated[str, typer.Argument()],
        place: Place,
        size: Size,
        color: Annotated[str, option("Its color.")] = "red",
    ) -> None:
        """Builds."""
        calls.append((name, place, size, color))

    return app, calls


def test_a_command_gets_the_dataclasses():
    app, calls = application()
    arguments = ["house", "--city", "Bern", "--zip", "3000", "--height", "9", "--color", "blue"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert calls == [("house", Place("Bern", 3000), Size(1, 9), "blue")]


def test_fields_that_are_not_given_keep_their_defaults():
    app, calls = application()
    assert CliRunner().invoke(app, ["house"]).exit_code == 0
    assert calls == [("house", Place(), Size(), "red")]


def test_fields_that_a_command_leaves_out_are_no_options_and_keep_their_defaults():
    app, calls = application(without=("height",))
    assert CliRunner().invoke(app, ["house", "--height", "9"]).exit_code == 2
    assert CliRunner().invoke(app, ["house", "--width", "3"]).exit_code == 0
    assert calls == [("house", Place(), Size(3, 2), "red")]


def test_settings_of_a_field_are_checked():
    app, calls = application()
    assert CliRunner().invoke(app, ["house", "--zip", "0"]).exit_code == 2
    assert calls == []


def test_the_help_has_panels_and_shows_defaults():
    app, _ = application()
    text = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "120", "NO_COLOR": "1"}).output
    assert "─ Place ─" in text
    assert "Name of the city. [default: Basel]" in text
    assert "[default: (of the city)]" in text
    assert "Builds." in text


def test_the_plain_function_has_one_parameter_for_each_option():
    @expand_options(without=["width"])
    def command(size: Size, count: int = 3) -> None:
        pass

    assert list(command.__annotations__) == ["height", "count"]
    with pytest.raises(KeyError):
        command(count=1)
