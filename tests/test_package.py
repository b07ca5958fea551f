"""What a wheel of this package would hold."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "semanticspec"


def test_the_package_stays_small_and_has_no_pictures():
    files = [path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) < 8_000_000
    assert not [path for path in files if path.suffix in (".png", ".svg", ".jpg")]


def test_every_file_has_a_use():
    """Kinds of files that are read at run time; anything else would be shipped for nothing."""
    used = {".py", ".json", ".toml", ".html", ".jinja", ".safetensors", ".md", ".typed"}
    files = [path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {path.suffix or f".{path.name}" for path in files} <= used, sorted({path.suffix for path in files})
