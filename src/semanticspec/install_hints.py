"""The command that installs an optional dependency, for error messages."""

from __future__ import annotations

import json
import shlex
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlparse

_PACKAGE = "semanticspec"


def install_hint(extra: str) -> str:
    """Returns the shell command that adds an extra to this installation, for example `pip install '.[server]'`.

    A package index, a wheel file, a checkout and an editable install each need another command; which one this is
    follows from the installed metadata (PEP 610, `direct_url.json`).
    """
    location = _installed_from()
    if location is None:
        return _pip_install(f"{_PACKAGE}[{extra}]")
    if location.is_dir():
        constraints = location / "constraints.txt"
        options = ["-c", str(constraints)] if constraints.is_file() else []
        return _pip_install(*options, f"{location}[{extra}]")
    return _pip_install(f"{_PACKAGE}[{extra}] @ {location.as_uri()}")


def _installed_from() -> Path | None:
    """Returns the checkout or wheel this package comes from; None if it comes from a package index."""
    try:
        text = distribution(_PACKAGE).read_text("direct_url.json")
    except PackageNotFoundError:  # run from a source tree
        return Path(__file__).resolve().parents[2]
    url = urlparse(json.loads(text)["url"]) if text else None
    return Path(unquote(url.path)) if url is not None and url.scheme == "file" else None


def _pip_install(*arguments: str) -> str:
    return shlex.join(["pip", "install", *arguments])
