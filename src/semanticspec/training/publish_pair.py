"""Publishes a prepared pair: one folder or hub repository with the draft's adapter, both probes, and their figures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from semanticspec.engines.transformers.adapters import adapter_digest
from semanticspec.output.files import write_atomically
from semanticspec.output.pages import render_template
from semanticspec.pairs import ADAPTER_FOLDER, PAIR_FILE, PROBE_FOLDERS, PairCard
from semanticspec.probes.card import CARD_FILE, ProbeCard
from semanticspec.records import Author
from semanticspec.training.align.align import REPORT_FILE
from semanticspec.training.align.report import rows
from semanticspec.training.publish import README_FILE

_ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json", REPORT_FILE)


def publish_pair(
    folder: Path,
    probes: Mapping[Author, Path],
    *,
    target: str,
    draft: str,
    adapter: Path | None = None,
) -> None:
    """Writes the folder of a prepared pair, see `pairs`.

    Args:
        probes: folders of published probes.
        target, draft: what the models are called.
        adapter: of the draft, as `Alignment` wrote it; None if the draft is used as it is.

    Raises:
        OSError: something cannot be read or written.
        ConfigError: jinja2 is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for role, source in probes.items():
        shutil.copytree(source, folder / PROBE_FOLDERS[role], dirs_exist_ok=True)
    card = PairCard(target, draft)
    figures: dict[str, Any] = {}
    if adapter is not None:
        (folder / ADAPTER_FOLDER).mkdir(exist_ok=True)
        for name in _ADAPTER_FILES:
            write_atomically(folder / ADAPTER_FOLDER / name, (adapter / name).read_bytes())
        card = PairCard(target, draft, adapter_digest(adapter))
        figures = rows(json.loads((adapter / REPORT_FILE).read_text()))
    cards = {role: ProbeCard.read(source / CARD_FILE) for role, source in probes.items()}
    text = render_template(
        "semanticspec.training", "pair.md.jinja", pair=card, alignment=figures, probes=cards
    )
    write_atomically(folder / README_FILE, text.encode())
    # last, since it makes the folder a pair
    write_atomically(folder / PAIR_FILE, (json.dumps(asdict(card), indent=1) + "\n").encode())
