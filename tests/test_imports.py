"""Imports point one way, see docs/architecture.md: no room imports a room above it, and no two import each other."""

from __future__ import annotations

import ast
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
LAYERS = (
    ("errors", "install_hints", "distributions", "records", "config", "output", "hub"),
    ("text",),
    ("engines.base",),
    ("decoding",),
    ("engines", "probes", "demo", "problems"),
    ("pairs",),
    ("loading",),
    ("training", "benchmark", "server", "doctor"),
    ("commands",),
    ("__main__",),
)
RANKS = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}
# The package's own __init__ offers the public names; it may know all of them, and only its version is imported below.
PUBLIC = "semanticspec"


def imports() -> dict[str, set[str]]:
    """Every module with the modules of ours that it imports, inside functions too."""
    modules = {
        ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
        for path in SOURCE.rglob("*.py")
    }
    found: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names if alias.name in modules}
            elif isinstance(node, ast.ImportFrom) and node.module in modules:
                for alias in node.names:
                    submodule = f"{node.module}.{alias.name}"
                    found[name].add(submodule if submodule in modules else node.module)
    return found


IMPORTS = imports()


def room_of(module: str) -> str:
    """`semanticspec.decoding.loop` -> `decoding`."""
    path = module.removeprefix(f"{PUBLIC}.")
    return "engines.base" if path == "engines.base" else path.split(".")[0]


def arrows() -> list[tuple[str, str]]:
    return [(a, b) for a, found in IMPORTS.items() for b in found if a != PUBLIC and b != PUBLIC]


def test_every_module_has_a_layer():
    assert {room_of(name) for name in IMPORTS} - {PUBLIC} <= set(RANKS)


def test_no_room_imports_a_room_above_it():
    upward = [f"{a} imports {b}" for a, b in arrows() if RANKS[room_of(a)] < RANKS[room_of(b)]]
    assert not upward


def test_the_loop_knows_no_engine_but_the_protocol():
    known = [f"{a} imports {b}" for a, b in arrows() if room_of(a) == "decoding" and room_of(b) == "engines"]
    assert not known


def test_only_loading_and_commands_know_the_demo():
    knowing = [
        a for a, b in arrows() if room_of(b) == "demo" and room_of(a) not in ("demo", "loading", "commands")
    ]
    assert not knowing
    above = [
        f"{a} imports {b}" for a, b in arrows() if room_of(a) == "demo" and RANKS[room_of(b)] > RANKS["text"]
    ]
    assert not [arrow for arrow in above if " imports semanticspec.demo" not in arrow]


@pytest.mark.parametrize("of", ["modules", "rooms"])
def test_there_is_no_circle(of):
    graph: dict[str, set[str]] = defaultdict(set)
    for a, b in arrows():
        one, other = (a, b) if of == "modules" else (room_of(a), room_of(b))
        if one != other:
            graph[one].add(other)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_nothing_inherits_the_loop_or_calls_its_private_functions():
    """The loop is open: `run_loop` takes a verifier and a listener, and nobody else looks inside."""
    for path in [*SOURCE.rglob("*.py"), *(SOURCE.parent / "experiments").rglob("*.py")]:
        if path.name == "loop.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "semanticspec.decoding.loop":
                names = {alias.name for alias in node.names}
                assert names <= {"run_loop", "Listener"}, f"{path} imports {names} from the loop"


def test_no_test_imports_another():
    for path in (SOURCE.parent / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            assert not (module or "").split(".")[-1].startswith("test_"), f"{path} imports {module}"
