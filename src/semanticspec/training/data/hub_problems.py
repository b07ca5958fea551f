"""Problems of a data set on the Hugging Face hub, read from the Parquet copy the hub keeps of every data set.

The copy lies in the branch `refs/convert/parquet`, in one layout for all: `CONFIG/SPLIT/0000.parquet` and so on.
So huggingface_hub, which transformers needs anyway, and pyarrow do; the `datasets` library is not needed.
Source: the hub's documentation of its dataset viewer, "List Parquet files".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from semanticspec.errors import ConfigError
from semanticspec.training.data.storage import arrow_module

_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?::(?P<split>[\w.-]+))?")
_BRANCH = "refs/convert/parquet"
_USUAL_CONFIGS = ("default", "main")
_USUAL_SPLIT = "train"


class HubName(NamedTuple):
    """A data set on the hub; split and configuration are None where they were left out."""

    repo: str
    split: str | None
    config: str | None


def hub_name(source: str, config: str | None) -> HubName | None:
    """Reads `org/name` or `org/name:split`; None for anything else, such as a file or a path to one."""
    match = _NAME.fullmatch(source)
    if match is None or Path(source).exists() or source.endswith((".jsonl", ".json")):
        return None
    return HubName(match["repo"], match["split"], config)


def hub_rows(name: HubName) -> Iterator[Mapping[str, Any]]:
    """The rows of one split, in order; each with all its fields.

    A configuration that was left out is the only one, `default` or `main`; a split the only one or `train`.

    Raises:
        ConfigError: the hub cannot be reached, or holds no such data set, configuration or split.
        ProbeError: pyarrow is missing.
    """
    parquet = arrow_module("pyarrow.parquet")
    for path in _files_of(name):
        local = _asked(name.repo, "hf_hub_download", name.repo, path)
        try:
            for batch in parquet.ParquetFile(local).iter_batches():
                yield from batch.to_pylist()
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} of the data set {name.repo} cannot be read: {error}") from error


def _files_of(name: HubName) -> list[str]:
    """The Parquet files of the configuration and split that were asked for."""
    files: dict[str, dict[str, list[str]]] = {}
    for path in sorted(_asked(name.repo, "list_repo_files", name.repo)):
        parts = PurePosixPath(path).parts
        if len(parts) == 3 and path.endswith(".parquet"):
            files.setdefault(parts[0], {}).setdefault(parts[1].removeprefix("partial-"), []).append(path)
    if not files:
        raise ConfigError(f"the data set {name.repo} has no Parquet copy on the hub; give a local JSONL file")
    config = name.config or next(filter(files.__contains__, (*_USUAL_CONFIGS, *_only(files))), None)
    if config not in files:
        raise ConfigError(
            f"the data set {name.repo} has {_missing('configuration', config)}; choose one of "
            f"{', '.join(files)} with --config"
        )
    splits = files[config]
    split = name.split or next(filter(splits.__contains__, (_USUAL_SPLIT, *_only(splits))), None)
    if split not in splits:
        raise ConfigError(
            f"the data set {name.repo} has {_missing('split', split)}; choose one of "
            f"{', '.join(f'{name.repo}:{other}' for other in splits)}"
        )
    return splits[split]


def _only(found: Mapping[str, Any]) -> list[str]:
    return list(found) if len(found) == 1 else []


def _missing(what: str, name: str | None) -> str:
    return f"no {what} {name!r}" if name else f"several {what}s"


def _asked(repo: str, function: str, *arguments: str) -> Any:
    """Calls a function of huggingface_hub about a data set's Parquet copy."""
    import huggingface_hub

    try:
        return getattr(huggingface_hub, function)(*arguments, repo_type="dataset", revision=_BRANCH)
    except Exception as error:  # several libraries' own: no connection, no such data set, offline mode
        line = (str(error).strip().splitlines() or [""])[0]
        raise ConfigError(
            f"the data set {repo} cannot be had from the hub ({type(error).__name__}: {line}); check the name and "
            "the connection, or give a local JSONL file"
        ) from error
