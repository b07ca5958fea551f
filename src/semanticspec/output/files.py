"""Output files: checked before long work, written atomically."""

from __future__ import annotations

import os
from pathlib import Path

from semanticspec.errors import ConfigError


def write_atomically(path: Path, content: bytes) -> None:
    """Writes to a temporary file next to `path`, then renames it.

    After a kill, the file holds its old or its new content, never a part. What is not a regular file (a device, a
    pipe) is written to as it is.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    sibling = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with sibling.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        sibling.replace(path)
    finally:
        sibling.unlink(missing_ok=True)


def check_output_folder(path: Path, option: str = "--out") -> None:
    """Checks that a folder can be written to, or made, without making it.

    Raises:
        ConfigError: it is a file, lies below one, or is not writable.
    """
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{option} {path} is a file; expected a folder")
    _check_ancestor(path, option)


def check_output_file(path: Path, option: str = "--out") -> None:
    """Checks that a file can be written, without writing it.

    Raises:
        ConfigError: it is a folder, lies below a file, or is not writable.
    """
    if path.is_dir():
        raise ConfigError(f"{option} {path} is a folder; expected a file")
    if path.exists() and not os.access(path, os.W_OK):
        raise ConfigError(f"{option} {path} is not writable; choose another file")
    if not path.exists() or path.is_file():
        _check_ancestor(path.parent, option)


def _check_ancestor(path: Path, option: str) -> None:
    """Checks the closest folder that exists already."""
    closest = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not closest.is_dir():
        raise ConfigError(f"{option} is below {closest}, which is a file; choose another place")
    if not os.access(closest, os.W_OK):
        raise ConfigError(
            f"{option} {path} is not writable (no permission in {closest}); choose another place"
        )
