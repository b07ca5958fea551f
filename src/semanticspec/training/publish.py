"""Publishes a trained probe: a folder or Hugging Face Hub repository with card, weights, README and figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from semanticspec.engines.base import LAST_LAYER, StateSpec
from semanticspec.errors import ConfigError, ProbeError
from semanticspec.install_hints import install_hint
from semanticspec.output.files import write_atomically
from semanticspec.output.pages import render_template
from semanticspec.probes.card import CARD_FILE, WEIGHTS_FILE, ProbeCard
from semanticspec.probes.probe import Probe
from semanticspec.training.evaluate import EVALUATION_FILE, read_evaluation
from semanticspec.training.labels.outcomes import OUTCOME
from semanticspec.training.report import ERRORS, HEADINGS, RANKING, method_of

README_FILE = "README.md"
FIGURES_FOLDER = "figures"


def publish(probe: Path, folder: Path, evaluation: Path | None = None, title: str = "") -> Path:
    """Writes a probe with its README into a folder, which can be the probe's own.

    Args:
        evaluation: folder of its report, for figures and tables; None = the README has the figures of the card.
        title: of the README; empty = made from the card.

    Raises:
        ProbeError: probe or report are missing or broken, or the report is of another probe.
    """
    card = Probe.load(probe).card
    content = read_evaluation(evaluation) if evaluation else None
    if content is not None and content["probe"]["weights_digest"] != card.weights_digest:
        raise ProbeError(
            f"{evaluation} is the report of another probe than {probe}; evaluate this one: semanticspec probe evaluate"
        )
    pictures = sorted(evaluation.glob("*.png")) if evaluation else []
    (folder / FIGURES_FOLDER if pictures else folder).mkdir(parents=True, exist_ok=True)
    if folder.resolve() != probe.resolve():
        for name in (WEIGHTS_FILE, CARD_FILE):
            write_atomically(folder / name, (probe / name).read_bytes())
    for picture in pictures:
        write_atomically(folder / FIGURES_FOLDER / picture.name, picture.read_bytes())
    if evaluation is not None:
        write_atomically(folder / EVALUATION_FILE, (evaluation / EVALUATION_FILE).read_bytes())
    text = readme(card, content, [picture.name for picture in pictures], title)
    write_atomically(folder / README_FILE, text.encode())
    return folder


def push(probe: Path, repository: str, evaluation: Path | None = None, *, private: bool = False) -> str:
    """Uploads a probe to the hub; creates the repository if needed.

    Returns:
        URL of the commit, or the repository's name.

    Raises:
        ConfigError: the upload fails (name, permissions, network).
        ProbeError: see `publish`.
    """
    from huggingface_hub import HfApi

    with TemporaryDirectory(prefix="semanticspec-publish-", ignore_cleanup_errors=True) as temporary:
        publish(probe, Path(temporary), evaluation, title=repository.rpartition("/")[2])
        hub = HfApi()
        try:
            hub.create_repo(repository, private=private, exist_ok=True)
            commit = hub.upload_folder(
                repo_id=repository, folder_path=temporary, commit_message="Upload a semanticspec probe"
            )
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ConfigError(
                f"the probe cannot be uploaded to {repository!r}: {reason}; check the name, the network and "
                "`hf auth login`"
            ) from error
    return str(getattr(commit, "commit_url", repository))


def readme(
    card: ProbeCard, evaluation: Mapping[str, Any] | None, pictures: Sequence[str], title: str = ""
) -> str:
    """Renders the README: front matter for the hub, what the probe is for, how to use it, its figures.

    Args:
        evaluation: content of `evaluation.json`.
        pictures: file names in the folder `figures`.

    Raises:
        ConfigError: jinja2 is not installed.
    """
    if find_spec("jinja2") is None:
        raise ConfigError(f"writing a README needs jinja2: {install_hint('probes')}")
    from huggingface_hub import ModelCardData

    hub_names = [name for name in card.names if name.count("/") == 1 and not name.startswith(("/", "."))]
    front_matter = ModelCardData(
        library_name="semanticspec",
        base_model=hub_names[0] if hub_names else None,
        tags=["semanticspec", "speculative-decoding", "probe", card.role],
    )
    return render_template(
        "semanticspec.training",
        "readme.md.jinja",
        front_matter=front_matter.to_yaml(),
        title=title or f"Probe of {card.names[0]} as {card.role}",
        model=card.names[0],
        card=card,
        facts=_facts(card),
        evaluation=evaluation,
        ranked=_ranked(evaluation) if evaluation else {},
        headings=HEADINGS,
        ranking=RANKING,
        errors=ERRORS,
        pictures=pictures,
        figures_folder=FIGURES_FOLDER,
        method=method_of((evaluation or {}).get("judge", card.judge)),
        made=json.dumps({"training": card.training, **(evaluation or {}).get("made", {})}, indent=1),
    )


def _ranked(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "this probe": evaluation["after"],
        **evaluation["signals"],
        f"probe − {evaluation['best_signal']}": evaluation["differences"],
        "ceiling": evaluation["ceiling"],
    }


def _facts(card: ProbeCard) -> dict[str, str]:
    reads = {
        "features": "log-probability features only, no state",
        "state": f"the pooled state ({card.hidden_size} values)",
        "both": f"the pooled state ({card.hidden_size} values) and {len(card.features)} features",
        "components": f"{card.components} principal components of the state and {len(card.features)} features",
    }[card.estimator]
    if card.draft is not None:
        state = f" and its pooled state ({card.draft.hidden_size} values)" if card.draft_state_size else ""
        reads += f"; of the draft, {card.draft.model_id}: its log-probabilities as features{state}"
    return {
        "model": f"{', '.join(card.names)} (revision {card.revision or 'unknown'})",
        "reads": reads,
        **({"states": _states(card)} if card.states != StateSpec() else {}),
        "hidden layers": ", ".join(map(str, card.widths)) or "none",
        "labels": f"{_labels(card)}, temperature {card.sampling.temperature}, top-p {card.sampling.top_p}",
        "trained on": f"{card.num_rows} segments of {card.num_problems} problems",
        "calibration map": card.calibration,
    }


def _labels(card: ProbeCard) -> str:
    if card.judge == OUTCOME:
        return "outcome: the share of the target's continuations from after a segment that reach the right answer"
    return f"judge {card.judge}, {card.counting} counting, {card.num_samples} samples per context"


def _states(card: ProbeCard) -> str:
    layer = "last layer, after the final norm" if card.layer == LAST_LAYER else f"layer {card.layer}"
    pooling = {"mean": "mean", "last": "last state", "attention": "learnt attention over the states"}
    return f"{layer}; {pooling[card.pooling]} of the positions that predict the segment's tokens"
