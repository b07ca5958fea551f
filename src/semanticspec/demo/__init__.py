"""The bundled pair: two small language models trained from scratch on word problems, and their grammar."""

from __future__ import annotations

from pathlib import Path

__all__ = ["draft_path", "draft_probe_path", "settings_path", "target_path", "target_probe_path"]

_HERE = Path(__file__).resolve().parent


def target_path() -> Path:
    """Returns the folder of the bundled target model (transformers format, with its tokenizer)."""
    return _HERE / "target"


def draft_path() -> Path:
    """Returns the folder of the bundled draft model (transformers format, with its tokenizer)."""
    return _HERE / "draft"


def target_probe_path() -> Path:
    """Returns the folder of the bundled target's probe."""
    return _HERE / "target-probe"


def draft_probe_path() -> Path:
    """Returns the folder of the bundled draft's probe."""
    return _HERE / "draft-probe"


def settings_path() -> Path:
    """Returns the settings that the bundled probes are made with, see `semanticspec.training.settings`."""
    return _HERE / "probes.toml"
