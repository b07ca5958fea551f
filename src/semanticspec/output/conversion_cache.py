"""Folders with the results of slow conversions, such as a tokenizer converted from a GGUF file."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

CACHE_VARIABLE = "SEMANTICSPEC_CACHE"
"""Environment variable that names the folder of this package's caches."""

_logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Returns the folder of this package's caches, by default `~/.cache/semanticspec`. It can always be deleted."""
    chosen = os.environ.get(CACHE_VARIABLE)
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(chosen or f"{base}/semanticspec").expanduser()


def kept_conversion(name: str) -> Path | None:
    """Returns the folder that `keep_conversion` wrote under this name; None if there is none."""
    folder = cache_folder() / name
    return folder if folder.is_dir() else None


def keep_conversion(name: str, write: Callable[[Path], object]) -> None:
    """Lets `write` fill a new folder and keeps it under this name. The folder appears when it is complete.

    If it cannot be written, a warning is logged: the conversion then runs again at the next start.
    """
    folder = cache_folder() / name
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".part-") as parent:
            part = Path(parent) / folder.name
            part.mkdir()
            write(part)
            part.rename(folder)
    except Exception as error:  # writers have errors of their own for a full disk
        if not folder.is_dir():  # another process may have been faster
            _logger.warning(
                "%s cannot be written (%s): the conversion runs again at the next start", folder, error
            )
