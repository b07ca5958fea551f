"""Writes docs/reference/cli/, one page for each command, from the commands themselves. Run it by `make docs-cli`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from semanticspec.commands.main import app

FOLDER = Path(__file__).parent / "reference" / "cli"
NOTE = "<!-- Generated from the commands: change their help texts, then run `make docs-cli`. -->"


def pages() -> dict[str, str]:
    """Returns the content of each page by file name."""
    root = typer.main.get_command(app)
    commands = dict(_commands(root, "semanticspec"))
    written = {_file(name): _page(name, command) for name, command in commands.items()}
    return {"index.md": _index(root, commands)} | written


def main() -> None:
    """Writes all pages and removes those of commands that no longer exist."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    wanted = pages()
    for page in FOLDER.glob("*.md"):
        if page.name not in wanted:
            page.unlink()
    for name, content in wanted.items():
        (FOLDER / name).write_text(content, encoding="utf-8")


def _commands(group: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Yields full names and commands, those of subcommands too."""
    for name, command in group.commands.items():
        yield f"{prefix} {name}", command
        if hasattr(command, "commands"):
            yield from _commands(command, f"{prefix} {name}")


def _file(name: str) -> str:
    return f"{name.removeprefix('semanticspec ').replace(' ', '-')}.md"


def _index(root: Any, commands: dict[str, Any]) -> str:
    rows = [f"| [`{name}`]({_file(name)}) | {_summary(command)} |" for name, command in commands.items()]
    return _joined(
        "# Command line",
        NOTE,
        root.help,
        "\n".join(["| Command | |", "|---|---|", *rows]),
        "`semanticspec --version` prints the version, `semanticspec COMMAND --help` the help of a command. "
        "`python -m semanticspec` is the same as `semanticspec`.",
        "Errors are one line on standard error, and exit code 2. Ctrl-C ends a command with exit code 130.",
    )


def _page(name: str, command: Any) -> str:
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    panels: dict[str, list[Any]] = {}
    for param in command.params:
        if param.param_type_name == "option" and not param.hidden:
            panels.setdefault(param.rich_help_panel or "Options", []).append(param)
    usage = [name, *(["[OPTIONS]"] if panels else []), *map(_usage, arguments)]
    sections = [_table("Arguments", "Argument", arguments)] if arguments else []
    sections += [_table(panel, "Option", panels[panel]) for panel in sorted(panels, key="Options".__ne__)]
    if subcommands := getattr(command, "commands", {}):
        lines = [
            f"- [`{name} {sub}`]({_file(f'{name} {sub}')}): {_summary(found)}"
            for sub, found in subcommands.items()
        ]
        sections.append("## Commands\n\n" + "\n".join(lines))
        if not panels:
            usage = [name, "COMMAND"]
    return _joined(
        f"# {name}", NOTE, _paragraphs(command.help), f"```text\n{' '.join(usage)}\n```", *sections
    )


def _usage(argument: Any) -> str:
    text = argument.name.upper() + ("..." if argument.nargs == -1 else "")
    return text if argument.required else f"[{text}]"


def _table(title: str, kind: str, params: list[Any]) -> str:
    rows = [
        f"| {_names(param)} | {_default(param)} | {' '.join(param.help.split()).replace('|', '&#124;')} |"
        for param in params
    ]
    return "\n".join([f"## {title}", "", f"| {kind} | Default | Meaning |", "|---|---|---|", *rows])


def _names(param: Any) -> str:
    if param.param_type_name == "argument":
        return f"`{param.name.upper()}`"
    names = [*param.opts, *param.secondary_opts]
    environment = f" (environment: `{param.envvar}`)" if param.show_envvar and param.envvar else ""
    return ", ".join(f"`{name}`" for name in names) + environment


def _default(param: Any) -> str:
    if param.required:
        return "required"
    if isinstance(param.show_default, str):
        return param.show_default if " " in param.show_default else f"`{param.show_default}`"
    if isinstance(param.default, bool):
        return "on" if param.default else "off"
    return "" if param.default in (None, "") else f"`{param.default}`"


def _summary(command: Any) -> str:
    return _paragraphs(command.help).split("\n\n")[0]


def _paragraphs(text: str | None) -> str:
    """Returns a help text with each paragraph on one line."""
    paragraphs = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _joined(*sections: str) -> str:
    return "\n\n".join(sections) + "\n"


if __name__ == "__main__":
    main()
