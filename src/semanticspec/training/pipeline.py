"""Runs all stages from one settings file and resumes an interrupted run.

A finished stage leaves a stamp with a digest of its inputs: its own settings and the inputs of the stages it builds
on. A stage whose stamp matches is skipped. An interrupted stage is run again; collecting and labelling continue from
what they have stored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from semanticspec.engines.registry import EngineChoice
from semanticspec.errors import ProbeError
from semanticspec.loading import model_names
from semanticspec.output.files import write_atomically
from semanticspec.output.pages import check_report_libraries
from semanticspec.output.progress import say
from semanticspec.pairs import PAIR_FILE
from semanticspec.probes.card import CARD_FILE
from semanticspec.probes.probe import Probe
from semanticspec.problems.sources import ProblemText, read_problems
from semanticspec.records import Author
from semanticspec.training import stages
from semanticspec.training.align.align import ADAPTER_FOLDER, Alignment, AlignModels, aligned_gguf, grader_for
from semanticspec.training.align.lora import require_peft
from semanticspec.training.calibrate import check_choice
from semanticspec.training.data.storage import Collection
from semanticspec.training.evaluate import EVALUATION_FILE
from semanticspec.training.publish import README_FILE, publish
from semanticspec.training.publish_pair import publish_pair
from semanticspec.training.settings import PairSettings, RunSettings
from semanticspec.training.train import pooling_of

SETTINGS_FILE = "settings.json"
DATA_FOLDER = "data"
_STAMPS_FOLDER = "stages"
ALIGN_FOLDER, PAIR_FOLDER = "align", "pair"
_NUM_STAGES = 9
_ROLES: tuple[Author, ...] = ("target", "draft")


def run(settings: RunSettings, out: Path) -> None:
    """Runs the unfinished stages; writes `data`, `probes/<role>`, `reports/<role>` and `published/<role>` in `out`.

    Raises:
        SemanticSpecError: what a stage raises; finished stages are kept.
    """
    for role, config in settings.train.items():
        check_choice(config.calibration)
        pooling_of(settings.pair.pooling, config.pooling, role)
    check_report_libraries("probes", "sklearn")
    wanted = settings.problems
    problems = read_problems(wanted.source, wanted.count, wanted.traces, wanted.config, wanted.template)
    if settings.align is not None:
        require_peft()
    started = _Pipeline(settings, out, problems)
    if not (out / SETTINGS_FILE).exists():
        started.save_settings()
    started.all()


class _Pipeline:
    """The stages of one run, their inputs, and which of them are finished."""

    def __init__(self, settings: RunSettings, out: Path, problems: list[ProblemText]) -> None:
        self.settings, self.out, self.problems = settings, out, problems
        self.number = 0
        self.collection = Collection(out / DATA_FOLDER)

    def save_settings(self) -> None:
        """Writes `settings.json`, which can be run again."""
        with stages.storing(self.out):
            self.out.mkdir(parents=True, exist_ok=True)
            write_atomically(self.out / SETTINGS_FILE, self.settings.to_json().encode())

    def all(self) -> None:
        """Runs every stage in order. Settings of an earlier run are replaced once its collection fits the new ones."""
        settings, out = self.settings, self.out
        pair = settings.pair
        weights = [_files_of(name) for name in model_names(pair.target, pair.draft)]
        inputs: tuple[Any, ...] = (
            _inputs_of(pair),
            weights,
            [problem[:3] for problem in self.problems],
            settings.collect.recorded(),
        )
        if settings.align is not None:
            align_inputs = (_inputs_of(pair), weights, self.problems, asdict(settings.align))
            aligned = self.stage("align", align_inputs, self._align, (out / ALIGN_FOLDER / "adapter").is_dir)
            inputs = (*inputs, aligned)
        collected = self.stage(
            "collect",
            inputs,
            self._collect,
            lambda: len(self.collection) >= len(self.problems),
        )
        self.save_settings()
        labelled = self.stage("label", (collected, asdict(settings.label)), self._label, lambda: True)
        trained = {
            role: self.stage(
                f"train-{role}",
                (labelled, role, asdict(settings.train[role])),
                partial(self._train, role),
                (out / "probes" / role / CARD_FILE).is_file,
            )
            for role in _ROLES
        }
        for role in _ROLES:
            evaluated = self.stage(
                f"evaluate-{role}",
                (trained, asdict(settings.evaluate)),
                partial(self._evaluate, role),
                (out / "reports" / role / EVALUATION_FILE).is_file,
            )
            self.stage(
                f"publish-{role}",
                (evaluated,),
                partial(self._publish, role),
                (out / "published" / role / README_FILE).is_file,
            )
        self.stage(
            "pair",
            (trained, asdict(settings.evaluate)),
            self._publish_pair,
            (out / PAIR_FOLDER / PAIR_FILE).is_file,
        )

    def stage(self, name: str, inputs: Any, work: Callable[[], None], is_there: Callable[[], bool]) -> str:
        """Runs a stage unless it is finished; returns the digest of its inputs.

        Args:
            inputs: everything that the result depends on.
            is_there: whether the result of an earlier run still exists.
        """
        self.number += 1
        digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
        stamp = self.out / _STAMPS_FOLDER / f"{name}.json"
        place = f"{self.number}/{_NUM_STAGES + (self.settings.align is not None)} {name}"
        if stamp.is_file() and _digest_in(stamp) == digest and is_there():
            say(f"{place}: skipped, already finished")
            return digest
        say(place)
        stamp.unlink(missing_ok=True)
        work()
        with stages.storing(stamp):
            stamp.parent.mkdir(exist_ok=True)
            write_atomically(stamp, (json.dumps({"inputs": digest}) + "\n").encode())
        return digest

    def _align(self) -> None:
        settings, wanted = self.settings, self.settings.align
        assert wanted is not None
        target, draft = model_names(settings.pair.target, settings.pair.draft)
        is_gguf = draft.endswith(".gguf")
        grader = grader_for(settings.problems.source, self.problems)
        Alignment(
            AlignModels(
                wanted.target or target,
                wanted.draft or draft,
                wanted.target_engine or settings.pair.target_engine,
                settings.pair.dtype,
                settings.pair.device,
            ),
            self.problems,
            wanted.answers,
            wanted.training,
            self.out / ALIGN_FOLDER,
            make_grader=grader,
            concurrency=wanted.concurrency,
        ).run(gguf=Path(draft).expanduser() if is_gguf else None)

    def _aligned(self) -> PairSettings:
        """Returns the pair with the aligned draft."""
        pair = self.settings.pair
        if self.settings.align is None:
            return pair
        _, draft = model_names(pair.target, pair.draft)
        folder = self.out / ALIGN_FOLDER
        if draft.endswith(".gguf"):
            return replace(pair, draft=str(aligned_gguf(folder, Path(draft))))
        return replace(
            pair,
            draft_engine=EngineChoice.parse(pair.draft_engine).with_option(
                "adapter", folder / ADAPTER_FOLDER
            ),
        )

    def _collect(self) -> None:
        pair, settings, folder = self._aligned(), self.settings, self.collection.folder
        models = stages.load_models(
            pair.target, pair.draft, pair.states, pair.engines, dtypes=pair.dtypes, device=pair.device
        )
        stages.run_collect(models, self.problems, settings.collect, folder, settings.problems.concurrency)
        if len(self.collection) > len(self.problems):
            say(
                f"{folder} holds {len(self.collection)} problems, more than the {len(self.problems)} in the settings; "
                "all of them are used"
            )

    def _label(self) -> None:
        stages.run_label(self.collection, self.settings.label)

    def _train(self, role: Author) -> None:
        names = self.settings.pair.target_names if role == "target" else self.settings.pair.draft_names
        config, judge = self.settings.train[role], self.settings.label.name
        stages.run_train(self.collection, role, judge, config, self.out / "probes" / role, names)

    def _evaluate(self, role: Author) -> None:
        wanted = self.settings.evaluate
        stages.run_evaluate(
            self.collection,
            Probe.load(self.out / "probes" / role),
            self.out / "reports" / role,
            Probe.load(self.out / "probes" / "draft") if role == "target" else None,
            learning_curve=wanted.learning_curve,
            ablations=wanted.ablations,
        )

    def _publish(self, role: Author) -> None:
        folder = self.out / "published" / role
        with stages.storing(folder):
            publish(self.out / "probes" / role, folder, self.out / "reports" / role)

    def _publish_pair(self) -> None:
        pair, out = self.settings.pair, self.out
        target, draft = model_names(pair.target, pair.draft)
        with stages.storing(out / PAIR_FOLDER):
            publish_pair(
                out / PAIR_FOLDER,
                {role: out / "published" / role for role in _ROLES},
                target=_hub_name(target, pair.target_names),
                draft=_hub_name(draft, pair.draft_names),
                adapter=out / ALIGN_FOLDER / ADAPTER_FOLDER if self.settings.align is not None else None,
            )
        say(
            f"pair in {out / PAIR_FOLDER}; use it with: semanticspec generate PROMPT --pair {out / PAIR_FOLDER}"
        )


def _hub_name(given: str, names: Sequence[str]) -> str:
    """Returns what a published pair calls a model: a further name if there is one, because folders are local."""
    return names[0] if names else given


def _inputs_of(pair: PairSettings) -> dict[str, Any]:
    """The settings of a pair without those at their defaults that earlier versions did not have."""
    later = ("target_dtype", "draft_dtype")
    return {name: value for name, value in asdict(pair).items() if value is not None or name not in later}


def _digest_in(stamp: Path) -> str:
    try:
        return str(json.loads(stamp.read_text())["inputs"])
    except (ValueError, KeyError, TypeError) as error:
        raise ProbeError(f"{stamp} is broken; delete it to run that stage again") from error


def _files_of(model: str) -> list[tuple[str, int, int]]:
    """Names, sizes and modification times of a local model's files, so that new weights are new inputs.

    Returns an empty list for a model on the hub.
    """
    path = Path(model).expanduser()
    files = sorted(path.iterdir()) if path.is_dir() else [path] if path.is_file() else []
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
