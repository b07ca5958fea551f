"""Fifth stage: a trained probe as a repository for the hub: card, weights, README with figures.

A probe's folder already is one; what is added is for people: `README.md`, the evaluation and its figures.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from semanticspec.engines.base import LAST_LAYER, StateSpec
from semanticspec.errors import ConfigError, ProbeError
from semanticspec.output.files import write_atomically
from semanticspec.probes.card import CARD_FILE, WEIGHTS_FILE, ProbeCard
from semanticspec.probes.probe import Probe
from semanticspec.training.evaluate import EVALUATION_FILE, read_evaluation
from semanticspec.training.report import HEADINGS, METHOD

README_FILE = "README.md"
FIGURES_FOLDER = "figures"


def publish(probe: Path, folder: Path, evaluation: Path | None = None, title: str = "") -> Path:
    """Writes a probe with its README into a folder; the probe's own folder will do.

    Args:
        evaluation: folder of its report, whose figures go into the README; None = the card's figures only.
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
    names = [picture.name for picture in pictures]
    write_atomically(folder / README_FILE, readme(card, content, names, title).encode())
    return folder


def push(probe: Path, repository: str, evaluation: Path | None = None, *, private: bool = False) -> str:
    """Uploads a probe to the hub, into a repository that is made if there is none.

    Returns:
        The commit's or the repository's address.

    Raises:
        ConfigError: the hub refuses (name, rights, no net).
        ProbeError: see `publish`.
    """
    from huggingface_hub import HfApi

    temporary = Path(tempfile.mkdtemp(prefix="semanticspec-publish-"))
    try:
        publish(probe, temporary, evaluation, title=repository.rpartition("/")[2])
        hub = HfApi()
        hub.create_repo(repository, private=private, exist_ok=True)
        commit = hub.upload_folder(
            repo_id=repository, folder_path=temporary, commit_message="Upload a semanticspec probe"
        )
    except (OSError, ValueError) as error:
        words = " ".join(str(error).split())[:300]
        raise ConfigError(
            f"the probe cannot be uploaded to {repository!r}: {words}; check the name, the net and `hf auth login`"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return str(getattr(commit, "commit_url", repository))


def readme(
    card: ProbeCard, evaluation: Mapping[str, Any] | None, pictures: list[str], title: str = ""
) -> str:
    """The README: front matter for the hub, what the probe is for, how to use it, its figures."""
    from huggingface_hub import ModelCardData

    hub_names = [name for name in card.names if name.count("/") == 1 and not name.startswith(("/", "."))]
    front = ModelCardData(
        library_name="semanticspec",
        base_model=hub_names[0] if hub_names else None,
        tags=["semanticspec", "speculative-decoding", "probe", card.role],
    ).to_yaml()
    parts = [
        f"---\n{front}\n---",
        f"# {title or f'Probe of {card.names[0]} as {card.role}'}",
        f"Estimates how likely `{card.names[0]}`, as the {card.role} of a pair, is to say something with the meaning "
        "of a segment it has just read or written, from its own pass over it. For "
        "[semanticspec](https://arxiv.org/abs/2602.03708) decoding.",
        f"```sh\nsemanticspec generate PROMPT --target ... --draft ... --{card.role}-probe THIS_REPOSITORY\n```",
        _facts(card),
        "## Figures",
        _figures(evaluation) if evaluation else _card_figures(card),
        *(f"![{name.removesuffix('.png').replace('_', ' ')}]({FIGURES_FOLDER}/{name})" for name in pictures),
        "## How it was made",
        METHOD
        if evaluation
        else "`semanticspec probe collect`, `label`, `train`; the figures are the card's.",
        f"```json\n{json.dumps({'training': card.training, **(evaluation or {}).get('made', {})}, indent=1)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _facts(card: ProbeCard) -> str:
    reads = {
        "features": "log-probability features only, no state",
        "state": f"the pooled state ({card.hidden_size} values)",
        "both": f"the pooled state ({card.hidden_size} values) and {len(card.features)} features",
        "components": f"{card.components} principal components of the state and {len(card.features)} features",
    }[card.estimator]
    facts = {
        "model": f"{', '.join(card.names)} (revision {card.revision or 'unknown'})",
        "reads": reads,
        **({"states": _states(card)} if card.states != StateSpec() else {}),
        "hidden layers": ", ".join(map(str, card.widths)) or "none",
        "labels": f"judge {card.judge}, {card.counting} counting, {card.num_samples} samples a context, temperature "
        f"{card.sampling.temperature}, top-p {card.sampling.top_p}",
        "trained on": f"{card.num_rows} segments of {card.num_problems} problems",
        "calibration map": card.calibration,
    }
    return "| | |\n|---|---|\n" + "\n".join(f"| {name} | {fact} |" for name, fact in facts.items())


def _states(card: ProbeCard) -> str:
    layer = "last layer, after the final norm" if card.layer == LAST_LAYER else f"layer {card.layer}"
    pooling = {"mean": "mean", "last": "last state", "attention": "learnt attention over the states"}[
        card.pooling
    ]
    return f"{layer}; {pooling} of the positions that predict the segment's tokens"


def _figures(evaluation: Mapping[str, Any]) -> str:
    """The main tables of an evaluation as Markdown, with 95 % intervals."""
    sizes, best = evaluation["sizes"], evaluation["best_signal"]
    ranking = ("auroc", "average_precision")
    scored = {
        "this probe": evaluation["after"],
        **evaluation["signals"],
        f"probe − {best}": evaluation["differences"],
        "ceiling": evaluation["ceiling"],
    }
    maps = {"before calibration": evaluation["before"], "after": evaluation["after"]}
    errors = ("r2", "mae", "spearman", "calibration_error")
    return "\n\n".join(
        (
            f"On {sizes['segments']:.0f} draft-written segments of {sizes['problems']:.0f} test problems, judge "
            f"`{evaluation['judge']}`; 95 % intervals by problem.",
            _markdown(scored, ranking),
            _markdown(maps, errors),
        )
    )


def _card_figures(card: ProbeCard) -> str:
    return "| figure | |\n|---|---|\n" + "\n".join(
        f"| {name} | {value:g} |" for name, value in card.metrics.items()
    )


def _markdown(rows: Mapping[str, Mapping[str, Any]], columns: tuple[str, ...]) -> str:
    lines = [
        "| | " + " | ".join(HEADINGS[name] for name in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for name, figures in rows.items():
        lines.append(f"| {name} | " + " | ".join(_cell(figures.get(column)) for column in columns) + " |")
    return "\n".join(lines)


def _cell(figure: Mapping[str, float | None] | None) -> str:
    if figure is None or figure["value"] is None:
        return ""
    low, high = figure["low"], figure["high"]
    interval = f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else ""
    return f"{figure['value']:.3f}{interval}"
