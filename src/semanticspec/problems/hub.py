"""Reads the rows of a data set on the Hugging Face hub, or in a local folder, with the `datasets` library."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from semanticspec.errors import ConfigError, ProbeError
from semanticspec.hub import why_unreachable
from semanticspec.install_hints import install_hint

_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?::(?P<split>[\w.-]+))?")
_USUAL_CONFIG = "main"
_USUAL_SPLIT = "train"


class HubName(NamedTuple):
    """A data set.

    Attributes:
        repo: its name on the hub, or a local folder.
        split: None for the only split, or else `train`.
        config: its configuration; None for its default one, or else `main`.
    """

    repo: str
    split: str | None
    config: str | None


def hub_name(source: str, config: str | None) -> HubName | None:
    """Parses `org/name` or `org/name:split`, or the same with a local folder; None for anything else."""
    folder, _, split = source.partition(":")
    if folder and Path(folder).expanduser().is_dir():
        return HubName(str(Path(folder).expanduser()), split or None, config)
    match = _NAME.fullmatch(source)
    if match is None or Path(source).exists() or source.endswith((".jsonl", ".json")):
        return None
    return HubName(match["repo"], match["split"], config)


def hub_rows(name: HubName, *, streaming: bool = False) -> Iterator[Mapping[str, Any]]:
    """Yields the rows of one split in order, each with all its fields.

    Args:
        name: the data set.
        streaming: reads rows from the hub as they are needed, instead of downloading the data set into the cache
            first. Ignored in offline mode (`HF_HUB_OFFLINE`), where only the cache can be read. Local folders are
            always streamed.

    Raises:
        ConfigError: the data set, configuration or split does not exist, or the hub cannot be reached.
        ProbeError: the `datasets` package is missing.
    """
    try:
        import datasets
    except ImportError as error:
        raise ProbeError(f"data sets need the datasets package: {install_hint('probes')}") from error
    if not Path(name.repo).is_dir() and not datasets.config.HF_HUB_OFFLINE and (reason := why_unreachable()):
        raise ConfigError(
            f"the Hugging Face hub cannot be reached ({reason}) for the data set {name.repo}; check the network, set "
            "HF_HUB_OFFLINE=1 if the data set is in the cache, or give a local JSONL file"
        )
    with _one_line_errors(name):
        config = name.config
        if config is None and _USUAL_CONFIG in datasets.get_dataset_config_names(name.repo):
            config = _USUAL_CONFIG
        streaming = Path(name.repo).is_dir() or (streaming and not datasets.config.HF_HUB_OFFLINE)
        loaded = datasets.load_dataset(name.repo, config, split=name.split, streaming=streaming)
    rows = loaded if name.split else loaded[_default_split(name, list(loaded))]
    with _one_line_errors(name):
        yield from rows


def _default_split(name: HubName, splits: list[str]) -> str:
    if len(splits) == 1:
        return splits[0]
    if _USUAL_SPLIT in splits:
        return _USUAL_SPLIT
    choices = ", ".join(f"{name.repo}:{split}" for split in splits)
    raise ConfigError(f"the data set {name.repo} has several splits; choose one of {choices}")


@contextmanager
def _one_line_errors(name: HubName) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of several libraries: no connection, no such data set, broken files
        causes = (error, error.__cause__) if error.__cause__ else (error,)
        said = ", ".join(f"{type(cause).__name__}: {' '.join(str(cause).split())[:300]}" for cause in causes)
        raise ConfigError(
            f"the data set {name.repo} cannot be read ({said}); check its name, the configuration (--config), the "
            f"split ({name.repo}:SPLIT) and the connection, or give a local JSONL file"
        ) from error
