"""LoRA adapters: merged into a model's weights when it is loaded, so that they cost nothing in use."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from semanticspec.errors import EngineError, ModelError, first_line
from semanticspec.hub import hub_or_cache
from semanticspec.install_hints import install_hint
from semanticspec.output.quiet import quiet

ADAPTER_FILE = "adapter_model.safetensors"
ADAPTER_CONFIG_KEY = "semanticspec_adapter"
"""Names the adapter in the config of a model whose weights contain it."""


def adapter_digest(folder: Path) -> str:
    """Returns a digest of an adapter's weights."""
    return hashlib.sha256((folder / ADAPTER_FILE).read_bytes()).hexdigest()[:16]


def find_adapter(name: str) -> Path:
    """Returns the folder of an adapter; downloads it if it is on the hub and not cached.

    Raises:
        ModelError: There is no such adapter.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        folder = _download(name)
    if not (folder / ADAPTER_FILE).is_file():
        raise ModelError(
            f"{name} is not an adapter: it has no {ADAPTER_FILE}; make one with: semanticspec draft align"
        )
    return folder


def merge_adapter(model: Any, name: str) -> tuple[Any, str]:
    """Merges an adapter into a model.

    Returns:
        The model, and the adapter's digest.

    Raises:
        ModelError: There is no such adapter, or it was made for another model.
        EngineError: peft is not installed.
    """
    folder = find_adapter(name)
    if find_spec("peft") is None:
        raise EngineError(f"loading an adapter needs peft: {install_hint('align')}")
    from peft import PeftModel

    try:
        with quiet():
            merged = PeftModel.from_pretrained(model, str(folder)).merge_and_unload().eval()
    except Exception as error:
        raise ModelError(f"the adapter {name} does not fit the model: {first_line(error)}") from error
    return merged, adapter_digest(folder)


def merged_adapter(config: Any) -> str:
    """Returns the digest of the adapter that a model's weights contain; "" if there is none."""
    return str(getattr(config, ADAPTER_CONFIG_KEY, None) or "")


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    try:
        with hub_or_cache((repository,)):
            found = snapshot_download(
                repository, revision=revision or None, allow_patterns=["adapter_*", "*.json"]
            )
    except (OSError, ValueError) as error:
        raise ModelError(
            f"there is no adapter {name!r}, neither as a folder nor on the hub ({first_line(error)}); check the name"
        ) from error
    return Path(found)
