"""Declares options, and groups of options that several commands share: dataclasses whose fields are the options."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from dataclasses import fields, is_dataclass
from functools import wraps
from typing import Any, get_type_hints

import typer

Command = Callable[..., None]


def option_in(panel: str | None = None) -> Callable[..., Any]:
    """Returns a short form of `typer.Option` for one panel of the help.

    Its arguments are the help text, the option's names (if they do not follow from the parameter's name), `default`
    (the text to show as the default of a parameter that defaults to None), and settings of `typer.Option`.
    """

    def declare(text: str, *names: str, default: str | None = None, **settings: Any) -> Any:
        shown = True if default is None else default
        return typer.Option(*names, help=text, show_default=shown, rich_help_panel=panel, **settings)

    return declare


option = option_in()


def expand_options(*, without: Collection[str] = ()) -> Callable[[Command], Command]:
    """Makes typer show each field of a command's dataclass parameters as an option.

    The fields are annotated the way typer annotates parameters (`Annotated[str, option(...)] = "auto"`). The
    command itself is called with the dataclasses:

        @app.command()
        @expand_options(without=["seed"])
        def generate(prompt: str, pair: PairOptions, sampling: SamplingOptions) -> None: ...

    Args:
        without: names of fields that this command does not offer; they keep their defaults.
    """

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        parameters: list[inspect.Parameter] = []
        groups: dict[str, tuple[Any, list[str]]] = {}
        for parameter in signature.parameters.values():
            if is_dataclass(parameter.annotation):
                options = _option_parameters(parameter.annotation, without)
                groups[parameter.name] = (parameter.annotation, [option.name for option in options])
                parameters += options
            else:
                parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

        @wraps(command)
        def expanded(**values: Any) -> None:
            for name, (group, options) in groups.items():
                values[name] = group(**{option: values.pop(option) for option in options})
            command(**values)

        expanded.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        expanded.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return expanded

    return decorate


def _option_parameters(group: Any, without: Collection[str]) -> list[inspect.Parameter]:
    """Returns one keyword parameter for each field of a dataclass."""
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hints[field.name]
        )
        for field in fields(group)
        if field.name not in without
    ]
