"""Where a probe is: a folder, a name that comes with the package, or a repository on the hub. Loads no torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from semanticspec import demo
from semanticspec.errors import ProbeError
from semanticspec.probes.card import CARD_FILE, WEIGHTS_FILE, ProbeCard
from semanticspec.records import Author

if TYPE_CHECKING:
    from semanticspec.engines.base import EngineInfo

BUNDLED = "bundled"
PRETRAINED = Path(__file__).resolve().parent / "pretrained"
"""`<pair name>/{target,draft}/`, each a probe's folder."""

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


@dataclass(frozen=True, slots=True)
class PackagedProbe:
    """A probe that comes with the package.

    Attributes:
        pair: the name to use it by.
    """

    pair: str
    role: Author
    path: Path
    card: ProbeCard


def packaged_probes() -> list[PackagedProbe]:
    """All probes that come with the package, those of the bundled pair first.

    Raises:
        ProbeError: a card of one of them is broken.
    """
    return [
        PackagedProbe(pair, role, path, _read_card(path))
        for pair, role, path in _packaged_paths()
        if (path / CARD_FILE).is_file()
    ]


def locate(name: str, role: Author) -> Path:
    """The folder of a probe; a repository on the hub is downloaded (or found in the hub's cache).

    Args:
        name: a folder, a pair's name as `packaged_probes` has it, or owner/name[@revision] on the hub.

    Raises:
        ProbeError: it is nowhere.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    for pair, its_role, path in _packaged_paths():
        if (pair, its_role) == (name, role) and path.is_dir():
            return path
    known = ", ".join(sorted({pair for pair, _, path in _packaged_paths() if path.is_dir()}))
    said = f"there is no folder {name!r} for the {role}'s probe"
    if not _HUB_NAME.fullmatch(name) or name.startswith("."):
        raise ProbeError(
            f"{said}, and no packaged pair of that name (there are: {known}); make one with `semanticspec probe`"
        )
    try:
        return _download(name)
    except OSError as error:
        raise ProbeError(
            f"{said}, and it cannot be had from the hub ({_reason(error)}); give a folder, owner/name[@revision], "
            f"or one of the packaged names ({known})"
        ) from error


def fitting(info: EngineInfo, fingerprint: str, role: Author, model: str) -> list[str]:
    """Names of packaged pairs whose probe of a role fits a model: in shape, tokenizer, and name.

    Args:
        model: as the user named it; the last part of its path must be that of a name in the card.
    """
    wanted = {_last_part(model), _last_part(info.model_id)}
    return [
        probe.pair
        for probe in packaged_probes()
        if not probe.card.mismatches(_as_loaded_for(probe.card, info), fingerprint, role)
        and probe.card.served_by(info)
        and wanted & {_last_part(name) for name in probe.card.names}
    ]


def _as_loaded_for(card: ProbeCard, info: EngineInfo) -> EngineInfo:
    """What the engine would say had it been loaded with this probe, and so with the states it reads."""
    if card.states.layer != info.layer:
        info = replace(info, layer=card.states.layer, norm_state=card.states.norm_state)
    return replace(info, pooling=card.states.pooling)


def _packaged_paths() -> Iterator[tuple[str, Author, Path]]:
    yield BUNDLED, "target", demo.target_probe_path()
    yield BUNDLED, "draft", demo.draft_probe_path()
    for pair in sorted(PRETRAINED.iterdir()) if PRETRAINED.is_dir() else []:
        for role in sorted(get_args(Author), reverse=True):
            yield pair.name, role, pair / role


def _read_card(folder: Path) -> ProbeCard:
    path = folder / CARD_FILE
    try:
        return ProbeCard.from_json(path.read_text(), str(path))
    except OSError as error:
        raise ProbeError(f"{path} cannot be read ({error.strerror}); install the package again") from error


def _download(name: str) -> Path:
    """The hub's snapshot of a repository; whatever keeps it away is an OSError."""
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    try:
        found = snapshot_download(
            repository, revision=revision or None, allow_patterns=[CARD_FILE, WEIGHTS_FILE]
        )
    except ValueError as error:  # what the hub says of names it does not allow
        raise OSError(str(error)) from error
    return Path(found)


def _reason(error: OSError) -> str:
    """The first sentence of what went wrong, in one line."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words.split(". ")[0][:200].rstrip(".")


def _last_part(name: str) -> str:
    return name.rstrip("/").rpartition("/")[2].lower()
