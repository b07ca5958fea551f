"""Fourth stage: how good a probe is on test problems, beside signals of the same pass that cost nothing.

All figures are of draft-written segments, counted as often as they were drawn; intervals (95 %) come from
resampling problems. What they are is said in `docs/probes.md`; `report` draws them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from semanticspec.errors import ProbeError
from semanticspec.output.files import write_atomically
from semanticspec.probes.card import Counting
from semanticspec.probes.features import CHEAP_SIGNALS, TokenSignals
from semanticspec.probes.probe import Probe
from semanticspec.probes.states import States, concatenated
from semanticspec.training.data.examples import Examples, gather, split_of
from semanticspec.training.data.storage import Collection
from semanticspec.training.labels.label import count_labels, read_meanings
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
    signal_values,
    spearman,
)

EVALUATION_FILE = "evaluation.json"
EVALUATION_FORMAT = 1
P_DRAFT = "p_draft"
Figures = dict[str, Interval]


@dataclass(frozen=True)
class JudgedRows:
    """The test problems' draft-written segments with everything that scores them. Tensors `[rows]`.

    Attributes:
        before, after: the probe's estimates without and with its calibration map.
        signals: cheap signals by name, higher = the model would rather say it.
        acceptance: probability of each row to be accepted. acceptance_rule: where that comes from, in words.
        p_draft_source: what the signal `p_draft` is, in words; empty where there is none.
    """

    examples: Examples
    before: Tensor
    after: Tensor
    signals: Mapping[str, Tensor]
    acceptance: Tensor
    acceptance_rule: str
    p_draft_source: str

    @property
    def positive(self) -> Tensor:
        """Whether the model would say the segment: label >= 0.5; bool."""
        return self.examples.labels >= POSITIVE


@dataclass(frozen=True)
class Evaluation:
    """A probe's figures, as `evaluation.json` holds them.

    Attributes:
        probe: its card. judge: whose labels it was judged by.
        sizes: problems, rows (distinct segments), segments, share_positive.
        before, after: figures of the estimates without and with the calibration map.
        accepted: figures on accepted segments alone; acceptance_rule says which those are.
        signals, signals_accepted: AUROC and average precision of every cheap signal.
        best_signal: the cheap signal with the highest AUROC on these very rows (in the signal's favour);
            differences: the probe's figures minus its, paired.
        ceiling: half of the model's samples predicting the other half.
        reliability: bins before and after, each [weight, mean estimate, mean label].
        learning_curve, ablations: see `retraining`; empty if not asked for.
        made: command line, versions.
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
    learning_curve: list[dict[str, Any]] = field(default_factory=list)
    ablations: list[dict[str, Any]] = field(default_factory=list)
    made: dict[str, Any] = field(default_factory=dict)
    format: int = EVALUATION_FORMAT

    def to_json(self) -> str:
        """Indented JSON; what is not a number becomes null."""
        return json.dumps(_plain(asdict(self)), indent=1, ensure_ascii=False) + "\n"

    def save(self, folder: Path) -> None:
        """Writes `evaluation.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / EVALUATION_FILE, self.to_json().encode())


def judge_rows(
    collection: Collection, probe: Probe, judge: str = "", draft_probe: Probe | None = None
) -> JudgedRows:
    """What a probe and the cheap signals say of the test problems' draft-written segments.

    Args:
        judge: whose labels; empty = those the probe was trained on.
        draft_probe: for a target's probe, what it is compared and put in proportion with.

    Raises:
        ProbeError: no labels, other models than the probe's, or no test problem.
    """
    check_collection(collection, probe)
    if draft_probe is not None:
        _check_draft_probe(collection, probe, draft_probe)
    meanings = read_meanings(collection, judge or probe.card.judge)
    everything = gather(collection, meanings, probe.card.role, "unbiased")
    drafted = everything.select(everything.drafted)
    test = drafted.of_split("test")
    if not len(test):
        raise ProbeError(
            "the collection has no draft-written segments in test problems (problems are split 60 / 20 / 20 "
            "by their ids); collect on more problems"
        )
    before = probe.probabilities(test.states, test.signals, calibrated=False)
    after = probe.probabilities(test.states, test.signals)
    signals = signal_values(CHEAP_SIGNALS, test.signals)
    acceptance, rule, source = (after >= POSITIVE).double(), "estimate of at least 0.5", ""
    if draft_probe is not None:
        states, signals_of_draft = _draft_readings(collection, meanings)
        in_test = torch.tensor([split_of(name) == "test" for name in drafted.problem_ids], dtype=torch.bool)
        signals[P_DRAFT] = draft_probe.probabilities(states, signals_of_draft)[in_test]
        acceptance = (after / signals[P_DRAFT]).clamp(max=1.0)
        rule = "weighted by min(1, p_target / p_draft), the default semantic rule in expectation"
        source = "the draft's probe"
    elif probe.card.role == "target":
        signals[P_DRAFT] = torch.tensor([sum(row) for row in test.draft_logprobs], dtype=torch.float64)
        source = "the sum of the draft's log-probabilities (no probe of the draft was given)"
    return JudgedRows(test, before, after, signals, acceptance, rule, source)


def evaluate(rows: JudgedRows, probe: Probe, judge: str = "") -> Evaluation:
    """All figures of a probe; learning curve and ablations are the caller's to add."""
    examples, positive = rows.examples, rows.positive
    boot = ProblemBootstrap(examples.problem_ids, examples.weights)
    signals = {name: _ranking(boot, values, positive) for name, values in rows.signals.items()}
    on_accepted = {
        name: _ranking(boot, values, positive, rows.acceptance) for name, values in rows.signals.items()
    }
    best = max(signals, key=lambda name: _or_lowest(signals[name]["auroc"].value))
    first, second = examples.halves.unbind(1)
    total = float(examples.weights.sum())
    return Evaluation(
        probe=json.loads(probe.card.to_json()),
        judge=judge or probe.card.judge,
        sizes={
            "problems": float(len(set(examples.problem_ids))),
            "rows": float(len(examples)),
            "segments": total,
            "share_positive": float(examples.weights[positive].sum()) / total,
        },
        before=estimate_figures(boot, rows.before, examples.labels),
        after=estimate_figures(boot, rows.after, examples.labels),
        accepted=_accepted_figures(boot, rows),
        acceptance_rule=rows.acceptance_rule,
        p_draft_source=rows.p_draft_source,
        signals=signals,
        signals_accepted=on_accepted,
        best_signal=best,
        differences=_differences(boot, rows.after, rows.signals[best], positive),
        ceiling={
            **_ranking(boot, first, second >= POSITIVE),
            "r2": boot.interval(_of(r_squared, first, second)),
        },
        reliability={
            "before": _bins(boot, rows.before, examples.labels),
            "after": _bins(boot, rows.after, examples.labels),
        },
    )


def estimate_figures(boot: ProblemBootstrap, estimates: Tensor, labels: Tensor) -> Figures:
    """The figures of estimates `[rows]` against soft labels `[rows]`."""
    measures = {
        "r2": r_squared,
        "mae": mean_absolute_error,
        "spearman": spearman,
        "calibration_error": calibration_error,
    }
    return _ranking(boot, estimates, labels >= POSITIVE) | {
        name: boot.interval(_of(measure, estimates, labels)) for name, measure in measures.items()
    }


def check_collection(collection: Collection, probe: Probe) -> None:
    """Raises ProbeError if a collection was made with another model than the probe's, or other states of it."""
    card = probe.card
    model = collection.manifest.model_of(card.role)
    names = ("hidden_size", "num_layers", *(("norm_state",) if card.use_state else ()), "fingerprint")
    differing = [
        f"{name} {getattr(card, name)} instead of {getattr(model, name)}"
        for name in names
        if getattr(card, name) != getattr(model, name)
    ]
    differing += card.state_mismatches(model.layer, model.pooling)
    if differing:
        raise ProbeError(
            f"the probe was made for {card.names[0]}, the collection {collection.folder} with "
            f"{model.model_id} as {card.role}: {', '.join(differing)}"
        )


def read_evaluation(folder: Path) -> dict[str, Any]:
    """The content of a folder's `evaluation.json`.

    Raises:
        ProbeError: there is none, or it is broken or of another format.
    """
    path = folder / EVALUATION_FILE
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ProbeError(f"{path} cannot be read; make it with: semanticspec probe evaluate") from error
    if not isinstance(content, dict) or content.get("format") != EVALUATION_FORMAT:
        raise ProbeError(f"{path} is not of format {EVALUATION_FORMAT}; evaluate the probe again")
    return content


def _of(
    measure: Callable[[Tensor, Tensor, Tensor], Tensor], first: Tensor, second: Tensor
) -> Callable[[Tensor], Tensor]:
    return partial(measure, first, second)


def _ranking(boot: ProblemBootstrap, scores: Tensor, positive: Tensor, rows: Tensor | None = None) -> Figures:
    measures = {"auroc": area_under_roc, "average_precision": average_precision}
    return {name: boot.interval(_of(measure, scores, positive), rows) for name, measure in measures.items()}


def _accepted_figures(boot: ProblemBootstrap, rows: JudgedRows) -> Figures:
    """Ranking on accepted segments, their share of all, and how many of them the model would say."""
    accepted = _ranking(boot, rows.after, rows.positive, rows.acceptance)
    accepted["share_accepted"] = boot.interval(lambda w: (w * rows.acceptance).sum(1) / w.sum(1))
    accepted["share_positive"] = boot.interval(
        lambda w: (w * rows.positive).sum(1) / w.sum(1), rows.acceptance
    )
    return accepted


def _differences(boot: ProblemBootstrap, probe: Tensor, signal: Tensor, positive: Tensor) -> Figures:
    return {
        "auroc": boot.interval(
            lambda w: area_under_roc(probe, positive, w) - area_under_roc(signal, positive, w)
        ),
        "average_precision": boot.interval(
            lambda w: average_precision(probe, positive, w) - average_precision(signal, positive, w)
        ),
    }


def _bins(boot: ProblemBootstrap, estimates: Tensor, labels: Tensor) -> list[list[float]]:
    counted = reliability(estimates, labels, boot.weights[:1])
    bins = torch.stack([part[0] for part in counted], dim=1).tolist()
    return [[float(value) for value in one] for one in bins if one[0] > 0]


def _draft_readings(
    collection: Collection, meanings: Mapping[str, Sequence[int]]
) -> tuple[States, list[TokenSignals]]:
    """The draft's own pass over the rows of `gather(..., "target", ...)` that it wrote, in their order."""
    states: list[States] = []
    signals: list[TokenSignals] = []
    counting: Counting = "unbiased"
    for shard in collection:
        labels = count_labels(shard.segments, meanings[shard.problem_id], "target", counting)
        drafted = [
            place
            for place, (segment, label) in enumerate(zip(shard.segments, labels, strict=True))
            if segment.author == "draft" and label is not None
        ]
        states.append(shard.draft_states[drafted])
        signals += [TokenSignals(shard.segments[place].draft_logprobs) for place in drafted]
    return concatenated(states), signals


def _check_draft_probe(collection: Collection, probe: Probe, draft_probe: Probe) -> None:
    if draft_probe.card.role != "draft" or probe.card.role != "target":
        raise ProbeError(
            "--draft-probe goes with a target's probe and must be a draft's; "
            f"got a {probe.card.role}'s probe with a {draft_probe.card.role}'s"
        )
    check_collection(collection, draft_probe)


def _or_lowest(value: float) -> float:
    return value if value == value else -1.0


def _plain(value: object) -> object:
    """JSON's types: intervals as objects, numbers rounded, not-a-number as null."""
    if isinstance(value, Interval):
        return {name: _plain(part) for name, part in value._asdict().items()}
    if isinstance(value, float):
        return round(value, 5) if value == value and abs(value) != float("inf") else None
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in cast("Sequence[object]", value)]
    return value
