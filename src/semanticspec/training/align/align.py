"""Aligns a draft with a target, in stages that resume: the target answers, the draft is measured, trained, and measured
again.

Sources: DistillSpec (arXiv 2310.08461); answers are collected once, before training (arXiv 2503.07807 finds that better
than answers of the draft that change while it trains).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from semanticspec.benchmark.grading import Grader
from semanticspec.benchmark.tasks import find_task
from semanticspec.decoding.pair import Model
from semanticspec.engines.registry import TRANSFORMERS
from semanticspec.engines.transformers.adapters import adapter_digest
from semanticspec.engines.transformers.loading import context_limit
from semanticspec.engines.transformers.loading import load_model as load_weights
from semanticspec.errors import ConfigError, ProbeError
from semanticspec.loading import load_model
from semanticspec.output.files import write_atomically
from semanticspec.output.progress import progress_bar, say
from semanticspec.problems.sources import DEMO_PROBLEMS, ProblemText
from semanticspec.text.vocabulary import Vocabulary
from semanticspec.training.align.acceptance import Acceptance, measure_acceptance
from semanticspec.training.align.answers import Answer, Answers, answer_problems, usable
from semanticspec.training.align.examples import Example, Vocabularies, examples_of
from semanticspec.training.align.export import merge, write_folder, write_gguf
from semanticspec.training.align.lora import CHECKPOINT_FILE, LoraTrainer, add_lora, require_peft
from semanticspec.training.align.settings import AlignConfig, AnswerSettings

ADAPTER_FOLDER, MERGED_FOLDER = "adapter", "merged"
ANSWERS_FOLDER, REPORT_FILE = "answers", "alignment.json"
_BEFORE_FOLDER, _AFTER_FOLDER = "draft-before", "draft-after"


@dataclass(frozen=True, slots=True)
class AlignModels:
    """The models of an alignment.

    Attributes:
        target, draft: hub name, folder or GGUF file; the draft must be one that transformers can train.
        target_engine: engine on which the target answers, see `load_model`.
        dtype, device: see `load_model`.
    """

    target: str
    draft: str
    target_engine: str = "auto"
    dtype: str = "auto"
    device: str = "auto"


@dataclass(frozen=True, slots=True)
class DraftFigures:
    """A draft on the test problems.

    Attributes:
        acceptance: see `Acceptance`; None if the target's engine returned no distributions.
        right, num_graded: its own right answers, and problems with a gold answer.
        mean_tokens: mean length of its own answers.
    """

    acceptance: Acceptance | None
    right: int
    num_graded: int
    mean_tokens: float


def aligned_gguf(folder: Path, base: Path) -> Path:
    """Returns where an alignment writes the copy of a GGUF file with the adapter merged."""
    return folder / f"{base.stem}-aligned.gguf"


def grader_for(source: str, problems: Sequence[ProblemText]) -> Callable[[], Grader] | None:
    """Returns what starts a grader of the problems' answers; None if there is no right answer to compare with.

    Raises:
        ConfigError: grading needs a library that is not installed.
    """
    if not any(problem.gold for problem in problems):
        return None
    task = find_task("demo" if source == DEMO_PROBLEMS else "custom")
    task.check_grader()
    return task.start_grader


class Alignment:
    """One alignment in a folder. Stages that are finished are skipped."""

    def __init__(
        self,
        models: AlignModels,
        problems: Sequence[ProblemText],
        answer_settings: AnswerSettings,
        config: AlignConfig,
        folder: Path,
        *,
        make_grader: Callable[[], Grader] | None = None,
        concurrency: int = 16,
    ) -> None:
        """Args:
        make_grader: starts a grader; None if the problems have no gold answers.
        """
        require_peft()
        self._models, self._problems = models, list(problems)
        self._settings, self._config, self._folder = answer_settings, config, folder
        self._make_grader, self._concurrency = make_grader, concurrency
        self._answers = Answers(folder / ANSWERS_FOLDER)
        self._vocabularies = Vocabularies(Vocabulary.load(models.target), Vocabulary.load(models.draft))
        self._max_tokens = context_limit(models.draft)

    @property
    def adapter(self) -> Path:
        """The folder of the adapter."""
        return self._folder / ADAPTER_FOLDER

    def run(self, *, merged: bool = False, gguf: Path | None = None) -> dict[str, Any]:
        """Runs the stages that are not finished; returns the report, which is also written beside the adapter.

        Args:
            merged: also write the merged model as a folder for transformers.
            gguf: also write it as a GGUF file, made from this file of the same draft.

        Raises:
            SemanticSpecError: what a stage raises; finished work is kept.
        """
        self._answer()
        answers = self._answers.read()
        test = [answer for answer in answers if answer.split == "test"]
        self._check_splits(answers)
        before = self._measure(test, _BEFORE_FOLDER, None)
        history = self._train(answers, merged=merged, gguf=gguf)
        after = self._measure(test, f"{_AFTER_FOLDER}-{adapter_digest(self.adapter)}", self.adapter)
        report = self._report(answers, history, before, after)
        write_atomically(self.adapter / REPORT_FILE, (json.dumps(report, indent=1) + "\n").encode())
        return report

    def _answer(self) -> None:
        """Lets the target answer. It is loaded only if answers are missing."""
        wanted = {
            (problem.problem_id, sample)
            for problem in self._problems
            for sample in range(self._settings.num_samples)
        }
        if (self._folder / ANSWERS_FOLDER).exists() and wanted <= {
            (answer.problem_id, answer.sample) for answer in self._answers.read()
        }:
            say(f"{len(wanted)} answers of the target exist already")
            return
        models = self._models
        target = load_model(
            models.target, engine=models.target_engine, dtype=models.dtype, device=models.device
        )
        self._write_answers(target, self._problems, self._answers, "target answers")

    def _write_answers(
        self, model: Model, problems: Sequence[ProblemText], answers: Answers, name: str
    ) -> None:
        """Lets a model answer, with a progress bar, and closes it."""
        grader = self._make_grader() if self._make_grader else None
        with progress_bar(name) as (progress, on_total):
            on_total(len(problems) * self._settings.num_samples)

            async def work() -> None:
                try:
                    await answer_problems(
                        model,
                        problems,
                        self._settings,
                        answers,
                        grader=grader,
                        concurrency=self._concurrency,
                        on_progress=lambda answer: progress(
                            f"{len(answer.token_ids)} tokens" if answer else ""
                        ),
                    )
                finally:
                    await model.engine.aclose()

            if grader is None:
                asyncio.run(work())
            else:
                with closing(grader):
                    asyncio.run(work())

    def _check_splits(self, answers: Sequence[Answer]) -> None:
        counts = {
            split: sum(answer.split == split for answer in answers)
            for split in ("train", "validation", "test")
        }
        if missing := [split for split, count in counts.items() if not count]:
            raise ConfigError(
                f"{len(answers)} answers give none for {', '.join(missing)}; ids decide the split, so use more problems"
            )

    def _measure(self, test: Sequence[Answer], own_folder: str, adapter: Path | None) -> DraftFigures:
        """Measures a draft on the test problems; its own answers are kept."""
        models = self._models
        engine = TRANSFORMERS if adapter is None else f"{TRANSFORMERS}:adapter={adapter}"
        draft = load_model(models.draft, engine=engine, dtype=models.dtype, device=models.device)
        examples = self._examples(test)
        acceptance = None
        if all(example.distributions for example in examples):
            with progress_bar("acceptance") as (progress, on_total):
                on_total(len(examples))
                acceptance = asyncio.run(
                    measure_acceptance(draft.engine, examples, self._settings.sampling, lambda: progress(""))
                )
        own = Answers(self._folder / own_folder)
        ids = {answer.problem_id for answer in test}
        problems = [problem for problem in self._problems if problem.problem_id in ids]
        self._write_answers(draft, problems, own, "draft answers")
        answers = own.read()
        graded = [answer.right for answer in answers if answer.right is not None]
        lengths = [len(answer.token_ids) for answer in answers]
        return DraftFigures(acceptance, sum(graded), len(graded), sum(lengths) / len(lengths))

    def _examples(self, answers: Sequence[Answer]) -> list[Example]:
        return examples_of(self._vocabularies, answers, self._max_tokens)

    def _train(self, answers: Sequence[Answer], *, merged: bool, gguf: Path | None) -> list[dict[str, Any]]:
        """Trains, and writes what was asked for. Returns the acceptance on validation problems, by step."""
        chosen = usable(answers, right_only=self._config.right_only)
        by_split = {
            split: self._examples([answer for answer in chosen if answer.split == split])
            for split in ("train", "validation")
        }
        loaded = load_weights(self._models.draft, None, self._models.dtype, self._models.device)
        if loaded.adapter:
            raise ConfigError(
                f"{self._models.draft} contains an adapter already; align the draft it was made of"
            )
        model = add_lora(loaded.model, self._config)
        trainer = LoraTrainer(
            model,
            by_split["train"],
            by_split["validation"],
            self._config,
            self._settings.sampling.temperature,
            self._folder,
        )
        with progress_bar("training") as (progress, on_total):
            on_total(trainer.num_steps)
            done = trainer.train(progress)
        try:
            model.save_pretrained(self.adapter)
        except OSError as error:
            raise ProbeError(
                f"{self.adapter} cannot be written: {error.strerror}; training is kept in {CHECKPOINT_FILE}, free some "
                "space and rerun the same command"
            ) from error
        if merged or gguf is not None:
            whole = merge(model, self.adapter)
            if merged:
                write_folder(whole, self._vocabularies.draft, self._folder / MERGED_FOLDER)
            if gguf is not None:
                path = aligned_gguf(self._folder, gguf)
                count = write_gguf(whole, gguf, path)
                say(f"{path}: {count} tensors with the adapter")
        return [asdict(evaluation) for evaluation in done.evaluations]

    def _report(
        self,
        answers: Sequence[Answer],
        history: list[dict[str, Any]],
        before: DraftFigures,
        after: DraftFigures,
    ) -> dict[str, Any]:
        return {
            "target": self._models.target,
            "draft": self._models.draft,
            "adapter": adapter_digest(self.adapter),
            "answers": {
                "settings": asdict(self._settings),
                "number": len(answers),
                "tokens": sum(len(answer.token_ids) for answer in answers),
                "right": sum(bool(answer.right) for answer in answers),
                "graded": sum(answer.right is not None for answer in answers),
                "test": sum(answer.split == "test" for answer in answers),
            },
            "training": asdict(self._config),
            "validation": history,
            "before": asdict(before),
            "after": asdict(after),
            "versions": {name: version(name) for name in ("semanticspec", "torch", "transformers", "peft")},
        }
