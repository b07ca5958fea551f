"""Finds probes: a folder, a pair that ships with the package, or a Hugging Face Hub repository. Loads no torch.

`pairs.json` lists the packaged pairs and where each of their two probes is; two pairs may share a probe.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from semanticspec.errors import ProbeError
from semanticspec.hub import hub_or_cache
from semanticspec.probes.card import CARD_FILE, WEIGHTS_FILE, ProbeCard
from semanticspec.records import Author

if TYPE_CHECKING:
    from semanticspec.engines.base import EngineInfo

BUNDLED = "bundled"
"""Name of the demo pair, whose models ship with the package too."""

PAIRS_FILE = Path(__file__).resolve().parent / "pairs.json"
"""`{pair: {"target": folder, "draft": folder}}`; folders are relative to the package."""

_PACKAGE = PAIRS_FILE.parents[1]
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


@dataclass(frozen=True, slots=True)
class PackagedProbe:
    """A probe that ships with the package; `pair` is the name to load it by."""

    pair: str
    role: Author
    path: Path
    card: ProbeCard


def packaged_probes() -> list[PackagedProbe]:
    """Returns the probes that ship with the package, those of the bundled pair first.

    Raises:
        ProbeError: a card cannot be read.
    """
    return [
        PackagedProbe(pair, role, path, ProbeCard.read(path / CARD_FILE))
        for pair, role, path in _packaged_paths()
    ]


def locate(name: str, role: Author) -> Path:
    """Returns the folder of a probe; downloads it if it is on the hub and not cached.

    Args:
        name: a folder, a packaged pair (see `packaged_probes`), or owner/name[@revision] on the hub.

    Raises:
        ProbeError: there is no such probe, or it cannot be downloaded.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    packaged = {pair: path for pair, its_role, path in _packaged_paths() if its_role == role}
    if name in packaged:
        return packaged[name]
    known = ", ".join(sorted(packaged))
    missing = f"the {role} probe {name!r} is neither a folder nor a packaged pair ({known})"
    if not _HUB_NAME.fullmatch(name) or name.startswith("."):
        raise ProbeError(f"{missing}; choose one of these, or train a probe with `semanticspec probe run`")
    try:
        return _download(name)
    except OSError as error:
        raise ProbeError(
            f"{missing}, and it cannot be downloaded from the hub ({_first_sentence(error)}); give a folder, "
            "a packaged pair or owner/name[@revision]"
        ) from error


def fitting(info: EngineInfo, fingerprint: str, role: Author) -> dict[str, str]:
    """Returns the packaged pairs whose probe fits a model, and the model that each was made for.

    A probe fits by the model's shape and tokenizer, whatever the model's folder is called. Models of one family can
    share both, so whoever uses the probe has to know that it is the same model; `Probe.check` warns if the weights
    are others.
    """
    return {
        probe.pair: probe.card.names[0]
        for probe in packaged_probes()
        if not probe.card.mismatches(_with_states_of(probe.card, info), fingerprint, role)
        and not probe.card.unserved_by(info)
    }


def _with_states_of(card: ProbeCard, info: EngineInfo) -> EngineInfo:
    """The engine's info as it would be if the engine were loaded with the states that the probe reads."""
    if card.states.layer != info.layer:
        info = replace(info, layer=card.states.layer, norm_state=card.states.norm_state)
    return replace(info, pooling=card.states.pooling)


def _packaged_paths() -> Iterator[tuple[str, Author, Path]]:
    pairs: dict[str, dict[Author, str]] = json.loads(PAIRS_FILE.read_text())
    for pair, probes in pairs.items():
        for role, folder in probes.items():
            path = _PACKAGE / folder
            if (path / CARD_FILE).is_file():
                yield pair, role, path


def _download(name: str) -> Path:
    """Downloads a repository; every failure is an OSError."""
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    try:
        with hub_or_cache((repository,), raises=ProbeError):
            found = snapshot_download(
                repository, revision=revision or None, allow_patterns=[CARD_FILE, WEIGHTS_FILE]
            )
    except ValueError as error:  # a name that the hub does not allow
        raise OSError(str(error)) from error
    return Path(found)


def _first_sentence(error: OSError) -> str:
    words = " ".join(str(error).split()) or type(error).__name__
    return words.split(". ")[0][:200].rstrip(".")
