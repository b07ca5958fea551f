"""The documentation names only commands, options, files and headings that exist."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main

from semanticspec import DecodingConfig, RuleConfig
from semanticspec.commands.main import app
from semanticspec.decoding.generate import decode, result_of, run_blocking
from tests.support.scripted_pairs import make_pair

ROOT = Path(__file__).parents[1]
REPOSITORY = re.compile(r"https://github\.com/semanticspec/semanticspec/(?:blob|tree)/main/(?P<path>.*)")
PAGES = sorted(
    page
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("experiments/**/*.md")]
    if not page.match("docs/results/*/*.md")  # tables written by `bench`
)
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
SHELL_BLOCK = re.compile(r"^```sh\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    broken = []
    for link in LINK.finditer(FENCE.sub("", page.read_text())):
        path, anchor = resolved(page, link["target"])
        if path is None:
            continue
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in headings(path)):
            broken.append(link["target"])
    assert broken == []


def resolved(page: Path, target: str) -> tuple[Path | None, str]:
    """Returns the file a link leads to and its anchor; None for other sites."""
    address, _, anchor = target.partition("#")
    if inside := REPOSITORY.fullmatch(address):
        return ROOT / inside["path"], anchor
    if ":" in address:
        return None, ""
    return (page.parent / address if address else page), anchor


@cache
def headings(page: Path) -> set[str]:
    """Returns the anchors of a page's headings, as MkDocs and GitHub make them for plain headings."""
    lines = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    words = (re.sub(r"[^\w\s-]", "", line.replace("`", "")).strip().lower() for line in lines)
    return {re.sub(r"[\s-]+", "-", text) for text in words}


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_commands_and_options_exist(page: Path) -> None:
    assert [wrong for line in shell_lines(page) for wrong in unknown_parts(line)] == []


def shell_lines(page: Path) -> Iterator[str]:
    """Yields the commands in a page's shell blocks, continuation lines joined."""
    for block in SHELL_BLOCK.finditer(page.read_text()):
        line = ""
        for part in block["code"].replace("\\\n", " ").splitlines():
            line += f"{part}\n"
            if complete(line):
                yield line
                line = ""


def complete(line: str) -> bool:
    """Returns whether no quotation is open at the end of the line."""
    try:
        shlex.split(line, comments=True)
    except ValueError:
        return False
    return True


def unknown_parts(line: str) -> list[str]:
    """Returns what a command line names that does not exist: commands, options, modules, scripts, make targets."""
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"\w+=.*", words[0]):  # environment variables
        del words[0]
    for name in ("semanticspec", "python", "make", "torchrun"):
        if name in words and not words[0].startswith(("pip", "git")):
            first, *rest = words[words.index(name) :]
            return CHECKS[first](rest)
    return []


def unknown_in_cli(words: list[str]) -> list[str]:
    command = typer.main.get_command(app)
    unknown = []
    for word in words:
        subcommands = getattr(command, "commands", {})
        if word in subcommands:
            command = subcommands[word]
        elif word.startswith("-"):
            names = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
            if word.split("=")[0] not in {*names, "-h", "--help"}:
                unknown.append(f"semanticspec {command.name} {word}")
        elif subcommands and not command.params:
            unknown.append(f"semanticspec {word}")
    return unknown


def unknown_in_python(words: list[str]) -> list[str]:
    if "-m" in words:
        module = words[words.index("-m") + 1].replace(".", "/")
        if module.startswith("semanticspec"):
            module = f"src/{module}"
        elif not module.startswith("experiments"):
            return []
        exists = (ROOT / f"{module}.py").is_file() or (ROOT / module / "__main__.py").is_file()
        return [] if exists else [module]
    scripts = [word for word in words if word.endswith(".py")]
    return [script for script in scripts if not (ROOT / script).is_file()]


def unknown_make_targets(words: list[str]) -> list[str]:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    return [word for word in words if word not in targets]


CHECKS = {
    "semanticspec": unknown_in_cli,
    "python": unknown_in_python,
    "torchrun": unknown_in_python,
    "make": unknown_make_targets,
}


def test_a_wrong_command_is_noticed() -> None:
    assert unknown_parts("semanticspec probe collect --levers x")
    assert unknown_parts("semanticspec bench replay --nothing")
    assert unknown_parts("python -m experiments.nothing")
    assert unknown_parts("make nothing")
    assert not unknown_parts("OMP_NUM_THREADS=1 taskset -c 0 semanticspec bench join a b --out c")


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_named_source_files_exist(page: Path) -> None:
    names = re.findall(r"`([\w-]+/[\w/.-]+\.(?:py|yaml|toml))`", page.read_text())
    places = (ROOT, ROOT / "src/semanticspec")
    assert [name for name in names if not any((place / name).exists() for place in places)] == []


def test_pages_named_in_the_code_exist() -> None:
    files = [
        *ROOT.glob("src/**/*.py"),
        *ROOT.glob("tests/**/*.py"),
        *ROOT.glob("configs/*.yaml"),
        ROOT / "Makefile",
    ]
    named = {page for file in files for page in re.findall(r"docs/[\w/-]+\.md", file.read_text())}
    assert [page for page in sorted(named) if not (ROOT / page).is_file()] == []


def test_the_example_of_a_verifier_runs() -> None:
    code = re.search(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert code
    names: dict[str, Any] = {}
    exec(code[1], names)
    config = DecodingConfig(rule=RuleConfig("always"))
    events = decode(make_pair(), "a", config, verifier=names["ShortSegments"])
    result = run_blocking(result_of(events))
    assert {segment.reason for segment in result.segments if segment.accepted} == {"short"}


def test_quoted_errors_exist() -> None:
    text = (ROOT / "docs/troubleshooting.md").read_text()
    quoted = re.findall(r"^error: (.*)$", text, re.MULTILINE)
    assert quoted
    assert [message for message in quoted if not is_raised(message)] == []


def is_raised(message: str) -> bool:
    """Returns whether the package can raise a message; any text may stand for its variable parts."""
    return any(pattern.fullmatch(message) for pattern in error_patterns())


def test_a_wrong_quote_is_noticed() -> None:
    assert is_raised("another process is writing to runs/x; wait for it or use another --out")
    assert not is_raised("another process is writing to runs/x; wait for it")
    assert not is_raised("something else: it went wrong")


@cache
def error_patterns() -> list[re.Pattern[str]]:
    """Returns patterns of the messages in the package; those of little fixed text would match too much."""
    return [
        re.compile("".join(".*" if part is None else re.escape(part) for part in parts))
        for parts in messages()
        if sum(character.isalpha() for part in parts for character in part or "") >= 12
    ]


def messages() -> Iterator[list[str | None]]:
    """Yields the texts that are passed to a call in the package, as fixed parts and None for variable ones."""
    for file in ROOT.glob("src/**/*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            for argument in node.args if isinstance(node, ast.Call) else ():
                if isinstance(argument, ast.JoinedStr):
                    yield [
                        str(part.value) if isinstance(part, ast.Constant) else None
                        for part in argument.values
                    ]
                elif isinstance(argument, ast.Constant):
                    yield [str(argument.value)]


def test_every_experiment_has_its_line_in_the_readme() -> None:
    listed = (ROOT / "experiments/README.md").read_text()
    folders = sorted(folder.parent.name for folder in ROOT.glob("experiments/*/__init__.py"))
    assert [
        name
        for name in folders
        if f"experiments.{name}" not in listed and f"experiments/{name}/" not in listed
    ] == []
