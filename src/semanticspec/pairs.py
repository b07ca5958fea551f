"""Prepared pairs: what makes a target and a draft work together, as one folder or hub repository.

Such a folder holds `pair.json`, which names the models, beside the draft's adapter and the probes. `semanticspec
prepare` writes it. Pairs that ship with the package have names of their own. Loads no torch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, with_config

from semanticspec.errors import ConfigError, first_line
from semanticspec.hub import hub_or_cache
from semanticspec.output.validation import STRICT, parse_json
from semanticspec.probes.registry import PAIRS_FILE, PackagedProbe, packaged_probes
from semanticspec.records import Author

PAIR_FILE = "pair.json"
PROBE_FOLDERS: dict[Author, str] = {"target": "target-probe", "draft": "draft-probe"}
ADAPTER_FOLDER = "adapter"
_FORMAT = 1
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+(@[\w./-]+)?")


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class PairCard:
    """Content of `pair.json`.

    Attributes:
        target, draft: hub names of the models, or what their makers called them.
        adapter: digest of the draft's adapter; "" if the draft is used as it is.
    """

    target: str
    draft: str
    adapter: str = ""
    format: Annotated[int, Field(le=_FORMAT)] = _FORMAT


@dataclass(frozen=True, slots=True)
class PreparedPair:
    """A prepared pair.

    Attributes:
        target, draft: hub names; None if the pair does not name them.
        target_probe, draft_probe: names or folders of the probes; None if it has none.
        adapter: folder of the draft's adapter; None if the draft is used as it is.
    """

    name: str
    target: str | None
    draft: str | None
    target_probe: str | None = None
    draft_probe: str | None = None
    adapter: Path | None = None


def find_pair(name: str) -> PreparedPair:
    """Finds a prepared pair; downloads it if it is on the hub and not cached.

    Args:
        name: a packaged pair (see `semanticspec probe list`), a folder with `pair.json`, or owner/name[@revision].

    Raises:
        ConfigError: there is no such pair, or its `pair.json` is broken.
    """
    packaged = {probe.role: probe for probe in packaged_probes() if probe.pair == name}
    if set(packaged) == {"target", "draft"}:
        return _packaged(name, packaged)
    folder = Path(name).expanduser()
    if (folder / PAIR_FILE).is_file():
        return _in_folder(name, folder)
    known = ", ".join(sorted({probe.pair for probe in packaged_probes()}))
    missing = (
        f"there is no pair {name!r}: it is neither a packaged pair ({known}) nor a folder with {PAIR_FILE}"
    )
    if not _HUB_NAME.fullmatch(name) or folder.exists():
        raise ConfigError(f"{missing}; make one with `semanticspec prepare`, or give --target and --draft")
    try:
        return _in_folder(name, _download(name))
    except OSError as error:
        raise ConfigError(
            f"{missing}, and it cannot be downloaded from the hub ({first_line(error)})"
        ) from error


def _packaged(name: str, probes: dict[Author, PackagedProbe]) -> PreparedPair:
    adapter = PAIRS_FILE.parent / "pretrained" / name / ADAPTER_FOLDER
    return PreparedPair(
        name,
        _hub_name(probes["target"]),
        _hub_name(probes["draft"]),
        name,
        name,
        adapter if adapter.is_dir() else None,
    )


def _in_folder(name: str, folder: Path) -> PreparedPair:
    path = folder / PAIR_FILE
    card = parse_json(PairCard, path.read_bytes(), str(path), raises=ConfigError, hint="copy the pair again")
    found = {role: folder / part for role, part in PROBE_FOLDERS.items() if (folder / part).is_dir()}
    adapter = folder / ADAPTER_FOLDER
    if card.adapter and not adapter.is_dir():
        raise ConfigError(f"{path} names an adapter, but there is no folder {adapter}; copy the pair again")
    return PreparedPair(
        name,
        card.target,
        card.draft,
        str(found["target"]) if "target" in found else None,
        str(found["draft"]) if "draft" in found else None,
        adapter if card.adapter else None,
    )


def _hub_name(probe: PackagedProbe) -> str | None:
    """Returns the first name of the probe's model that looks like `owner/name`."""
    names = (probe.card.model_id, *probe.card.model_names)
    return next((name for name in names if name.count("/") == 1 and not name.startswith((".", "/"))), None)


def _download(name: str) -> Path:
    """Downloads a repository; every failure is an OSError."""
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    try:
        with hub_or_cache((repository,), raises=ConfigError):
            folder = Path(snapshot_download(repository, revision=revision or None))
    except ValueError as error:  # a name that the hub does not allow
        raise OSError(str(error)) from error
    if not (folder / PAIR_FILE).is_file():
        raise OSError(f"the repository has no {PAIR_FILE}")
    return folder
