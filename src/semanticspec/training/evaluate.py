"""Evaluates a probe on test problems, compared with signals of the same pass that cost nothing.

All figures use draft-written segments, weighted by how often they were drawn; 95 % intervals come from resampling
problems. `docs/guides/probes.md` explains the figures; `report` writes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import isfinite, isnan
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semanticspec.errors import ProbeError
from semanticspec.output.files import write_atomically
from semanticspec.probes.features import CHEAP_SIGNALS, TokenSignals
from semanticspec.probes.probe import Probe
from semanticspec.probes.states import States, concatenated
from semanticspec.training.data.examples import (
    Examples,
    gather,
    segment_signals,
    segment_texts,
    split_of,
)
from semanticspec.training.data.storage import Collection
from semanticspec.training.feature_table import feature_table
from semanticspec.training.labels.label import ProblemLabels, count_labels, read_labels
from semanticspec.training.metrics import (
    POSITIVE,
    Interval,
    ProblemBootstrap,
    area_under_roc,
    average_precision,
    calibration_error,
    mean_absolute_error,
    r_squared,
    reliability,
    share,
    signal_values,
    spearman,
)
from semanticspec.training.train import estimates_of

EVALUATION_FILE = "evaluation.json"
EVALUATION_FORMAT = 1
P_DRAFT = "p_draft"
RANKING_MEASURES = {"auroc": area_under_roc, "average_precision": average_precision}
ERROR_MEASURES = {
    "r2": r_squared,
    "mae": mean_absolute_error,
    "spearman": spearman,
    "calibration_error": calibration_error,
}
Figures = dict[str, Interval]


@dataclass(frozen=True)
class JudgedRows:
    """The draft-written segments of the test problems, with everything that scores them. Tensors `[rows]`.

    Attributes:
        before, after: the probe's estimates without and with its calibration map.
        signals: cheap signals by name, higher = more probable for the model.
        acceptance: probability of each row to be accepted.
        acceptance_rule: where `acceptance` comes from, for people.
        p_draft_source: what the signal `p_draft` is, for people; empty if there is none.
        validation: the draft-written segments of the validation problems.
    """

    examples: Examples
    before: Tensor
    after: Tensor
    signals: Mapping[str, Tensor]
    acceptance: Tensor
    acceptance_rule: str
    p_draft_source: str
    validation: Examples

    @property
    def positive(self) -> Tensor:
        """Rows with a label of at least `POSITIVE`; bool."""
        return self.examples.labels >= POSITIVE


@dataclass(frozen=True)
class Evaluation:
    """A probe's figures; the content of `evaluation.json`.

    Attributes:
        probe: its card.
        judge: whose labels were used.
        sizes: problems, rows (distinct segments), segments, share_positive.
        before, after: figures of the estimates without and with the calibration map.
        accepted: figures on accepted segments only; see `acceptance_rule`.
        signals, signals_accepted: AUROC and average precision of every cheap signal.
        best_signal: the cheap signal with the highest AUROC on these same rows, which favours the signal.
        differences: the probe's figures minus those of `best_signal`, paired.
        ceiling: one half of the model's samples predicting the other half.
        reliability: bins before and after calibration, each [weight, mean estimate, mean label].
        features: every feature by itself, see `feature_table`.
        learning_curve, ablations: see `ablations.Retraining`; empty if not requested.
        made: command line and versions.
    """

    probe: dict[str, Any]
    judge: str
    sizes: dict[str, float]
    before: Figures
    after: Figures
    accepted: Figures
    acceptance_rule: str
    p_draft_source: str
    signals: dict[str, Figures]
    signals_accepted: dict[str, Figures]
    best_signal: str
    differences: Figures
    ceiling: Figures
    reliability: dict[str, list[list[float]]]
    features: list[dict[str, Any]] = field(default_factory=list)
    learning_curve: list[dict[str, Any]] = field(default_factory=list)
    ablations: list[dict[str, Any]] = field(default_factory=list)
    made: dict[str, Any] = field(default_factory=dict)
    format: int = EVALUATION_FORMAT

    def to_json(self) -> str:
        """The evaluation as indented JSON; nan becomes null."""
        return json.dumps(_plain(asdict(self)), indent=1, ensure_ascii=False) + "\n"

    def save(self, folder: Path) -> None:
        """Writes `evaluation.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / EVALUATION_FILE, self.to_json().encode())


def judge_rows(
    collection: Collection, probe: Probe, judge: str = "", draft_probe: Probe | None = None
) -> JudgedRows:
    """Scores the draft-written segments of the test problems by the probe and by the cheap signals.

    Args:
        judge: whose labels to use; empty = those the probe was trained on.
        draft_probe: for a target's probe; its estimates become the signal `p_draft` and define the acceptance.

    Raises:
        ProbeError: there are no labels or no test problems, or a probe is for other models than the collection's.
    """
    check_collection(collection, probe)
    if draft_probe is not None:
        _check_draft_probe(collection, probe, draft_probe)
    meanings = read_labels(collection, judge or probe.card.judge)
    draft_pooling = probe.card.pooling if probe.card.draft_state_size else None
    rows = gather(collection, meanings, probe.card.role, "unbiased", draft_pooling)
    drafted = rows.select(rows.drafted)
    test = drafted.of_split("test")
    if not len(test):
        raise ProbeError(
            "the collection has no draft-written segments in test problems (problems are split 60 / 20 / 20 "
            "by their ids); collect on more problems"
        )
    after = estimates_of(probe, test)
    signals = signal_values(CHEAP_SIGNALS, test.signals)
    acceptance, rule, source = (after >= POSITIVE).double(), "estimate of at least 0.5", ""
    if draft_probe is not None:
        in_test = torch.tensor([split_of(name) == "test" for name in drafted.problem_ids], dtype=torch.bool)
        signals[P_DRAFT] = draft_probe.probabilities(*_draft_pass(collection, meanings))[in_test]
        acceptance = (after / signals[P_DRAFT]).clamp(max=1.0)
        rule = "weighted by min(1, p_target / p_draft), the default semantic rule in expectation"
        source = "the draft's probe"
    elif probe.card.role == "target":
        signals[P_DRAFT] = torch.tensor([sum(row) for row in test.draft_logprobs], dtype=torch.float64)
        source = "the sum of the draft's log-probabilities (no probe of the draft was given)"
    before = estimates_of(probe, test, calibrated=False)
    validation = drafted.of_split("validation")
    return JudgedRows(test, before, after, signals, acceptance, rule, source, validation)


def evaluate(rows: JudgedRows, probe: Probe, judge: str = "") -> Evaluation:
    """Computes all figures of a probe, except learning curve and ablations."""
    examples, positive = rows.examples, rows.positive
    boot = ProblemBootstrap(examples.problem_ids, examples.weights)
    signals = _signal_figures(boot, rows)
    best = max(signals, key=lambda name: _auroc_or_lowest(signals[name]))
    return Evaluation(
        probe=json.loads(probe.card.to_json()),
        judge=judge or probe.card.judge,
        sizes=_sizes(examples, positive),
        before=estimate_figures(boot, rows.before, examples.labels),
        after=estimate_figures(boot, rows.after, examples.labels),
        accepted=_accepted_figures(boot, rows),
        acceptance_rule=rows.acceptance_rule,
        p_draft_source=rows.p_draft_source,
        signals=signals,
        signals_accepted=_signal_figures(boot, rows, rows.acceptance),
        best_signal=best,
        differences=_differences(boot, rows, best),
        ceiling=_ceiling(boot, examples),
        reliability={
            "before": _bins(boot, rows.before, examples.labels),
            "after": _bins(boot, rows.after, examples.labels),
        },
        features=feature_table(boot, rows.validation, examples, probe.card.role),
    )


def ranking_figures(
    boot: ProblemBootstrap, scores: Tensor, positive: Tensor, row_weights: Tensor | None = None
) -> Figures:
    """Figures of how well scores `[rows]` separate the positive rows from the others."""
    return {
        name: boot.interval(measure, scores, positive, row_weights=row_weights)
        for name, measure in RANKING_MEASURES.items()
    }


def estimate_figures(boot: ProblemBootstrap, estimates: Tensor, labels: Tensor) -> Figures:
    """All figures of estimates `[rows]` against soft labels `[rows]`."""
    errors = {name: boot.interval(measure, estimates, labels) for name, measure in ERROR_MEASURES.items()}
    return ranking_figures(boot, estimates, labels >= POSITIVE) | errors


def check_collection(collection: Collection, probe: Probe) -> None:
    """Checks that a collection was made with the probe's model and has the states that it reads.

    Raises:
        ProbeError: it was not.
    """
    card = probe.card
    model = collection.manifest.model_of(card.role)
    names = ("hidden_size", "num_layers", *(("norm_state",) if card.use_state else ()), "fingerprint")
    differing = [
        f"{name} {getattr(card, name)} instead of {getattr(model, name)}"
        for name in names
        if getattr(card, name) != getattr(model, name)
    ]
    differing += card.state_mismatches(model.layer, model.pooling)
    if card.draft is not None:
        draft = collection.manifest.draft
        differing += [
            f"draft's {name} {getattr(card.draft, name)} instead of {getattr(draft, name)}"
            for name in ("hidden_size", "num_layers", "fingerprint")
            if getattr(card.draft, name) != getattr(draft, name)
        ]
        differing += [f"draft's {it}" for it in card.draft_state_mismatches(draft.layer, draft.pooling)]
    if differing:
        raise ProbeError(
            f"the probe was made for {card.names[0]}, the collection {collection.folder} with "
            f"{model.model_id} as {card.role}: {', '.join(differing)}; evaluate it on a collection of its own models"
        )


def read_evaluation(folder: Path) -> dict[str, Any]:
    """Reads a folder's `evaluation.json`.

    Raises:
        ProbeError: the file is missing, broken or of another format.
    """
    path = folder / EVALUATION_FILE
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ProbeError(f"{path} cannot be read; make it with: semanticspec probe evaluate") from error
    if not isinstance(content, dict) or content.get("format") != EVALUATION_FORMAT:
        raise ProbeError(f"{path} is not of format {EVALUATION_FORMAT}; evaluate the probe again")
    return content


def _sizes(examples: Examples, positive: Tensor) -> dict[str, float]:
    """Returns the numbers of problems, rows and segments, and the share of positive segments."""
    segments = float(examples.weights.sum())
    return {
        "problems": float(len(set(examples.problem_ids))),
        "rows": float(len(examples)),
        "segments": segments,
        "share_positive": float(examples.weights[positive].sum()) / segments,
    }


def _signal_figures(
    boot: ProblemBootstrap, rows: JudgedRows, row_weights: Tensor | None = None
) -> dict[str, Figures]:
    """Returns AUROC and average precision of every cheap signal."""
    return {
        name: ranking_figures(boot, values, rows.positive, row_weights)
        for name, values in rows.signals.items()
    }


def _accepted_figures(boot: ProblemBootstrap, rows: JudgedRows) -> Figures:
    """Returns the probe's figures on accepted segments, and how many are accepted and positive."""
    figures = ranking_figures(boot, rows.after, rows.positive, rows.acceptance)
    figures["share_accepted"] = boot.interval(share, rows.acceptance)
    figures["share_positive"] = boot.interval(share, rows.positive, row_weights=rows.acceptance)
    return figures


def _differences(boot: ProblemBootstrap, rows: JudgedRows, signal: str) -> Figures:
    """Returns the probe's ranking figures minus those of a signal, paired."""
    return {
        name: boot.interval(
            lambda ours, theirs, labels, weights, measure=measure: (
                measure(ours, labels, weights) - measure(theirs, labels, weights)
            ),
            rows.after,
            rows.signals[signal],
            rows.positive,
        )
        for name, measure in RANKING_MEASURES.items()
    }


def _ceiling(boot: ProblemBootstrap, examples: Examples) -> Figures:
    """Returns the figures of one half of the model's samples as an estimate of the other half."""
    first, second = examples.halves.unbind(1)
    figures = ranking_figures(boot, first, second >= POSITIVE)
    figures["r2"] = boot.interval(r_squared, first, second)
    return figures


def _auroc_or_lowest(figures: Figures) -> float:
    value = figures["auroc"].value
    return -1.0 if isnan(value) else value


def _bins(boot: ProblemBootstrap, estimates: Tensor, labels: Tensor) -> list[list[float]]:
    """Non-empty reliability bins, each [weight, mean estimate, mean label]."""
    bins = torch.cat(reliability(estimates, labels, boot.weights[:1])).T
    found: list[list[float]] = bins[bins[:, 0] > 0].tolist()
    return found


def _draft_pass(
    collection: Collection, meanings: Mapping[str, ProblemLabels]
) -> tuple[States, list[TokenSignals]]:
    """The draft's own pass over the draft-written rows of `gather(..., "target", ...)`, in their order."""
    states: list[States] = []
    signals: list[TokenSignals] = []
    for shard in collection:
        labels = count_labels(shard.segments, meanings[shard.problem_id], "target", "unbiased")
        drafted = [
            place
            for place, (segment, label) in enumerate(zip(shard.segments, labels, strict=True))
            if segment.author == "draft" and label is not None
        ]
        states.append(shard.draft_states[drafted])
        texts = segment_texts(shard)
        signals += [segment_signals(shard.segments[place], "draft", texts[place]) for place in drafted]
    return concatenated(states), signals


def _check_draft_probe(collection: Collection, probe: Probe, draft_probe: Probe) -> None:
    if draft_probe.card.role != "draft" or probe.card.role != "target":
        raise ProbeError(
            "--draft-probe goes with a target's probe and must be a draft's; "
            f"got a {probe.card.role}'s probe with a {draft_probe.card.role}'s"
        )
    check_collection(collection, draft_probe)


def _plain(value: object) -> object:
    """Converts to JSON types: intervals to objects, numbers rounded, nan and infinity to null."""
    if isinstance(value, Interval):
        return {name: _plain(part) for name, part in value._asdict().items()}
    if isinstance(value, float):
        return round(value, 5) if isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value
