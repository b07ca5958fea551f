"""The target's answers: what a draft is aligned with. A folder with settings and one JSON line per answer.

A process that is killed loses the answers that it was writing; the others are kept.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from semanticspec.benchmark.grading import Grader
from semanticspec.decoding.pair import Model
from semanticspec.distributions import Distribution
from semanticspec.engines.base import derived_seed
from semanticspec.errors import ConfigError, ProbeError
from semanticspec.output.differences import as_json, differences, listed
from semanticspec.output.files import write_atomically
from semanticspec.output.journal import Journal
from semanticspec.problems.sources import ProblemText
from semanticspec.training.align.settings import MAX_NUCLEUS, AnswerSettings
from semanticspec.training.concurrency import work_on
from semanticspec.training.data.examples import Split, split_of

SETTINGS_FILE = "settings.json"
ANSWERS_FILE = "answers.jsonl"


@dataclass(frozen=True)
class Answer:
    """An answer of the target.

    Attributes:
        token_ids: in the target's vocabulary, with the token that ends the text if it was reached.
        finished: the text ended within the length limit.
        right: whether it gives the right answer; None if that is not known.
        nuclei: distributions that the tokens were drawn from, as token ids and probabilities, at most `MAX_NUCLEUS`
            entries each; none if the engine returns no distributions.
    """

    problem_id: str
    sample: int
    prompt: str
    token_ids: tuple[int, ...]
    finished: bool
    right: bool | None
    nuclei: tuple[tuple[tuple[int, ...], tuple[float, ...]], ...] = ()

    @property
    def split(self) -> Split:
        return split_of(self.problem_id)

    @cached_property
    def distributions(self) -> list[Distribution]:
        """The nuclei as distributions; empty if there are none."""
        return [Distribution(np.array(ids, np.int64), np.array(values)) for ids, values in self.nuclei]


class Answers:
    """A folder of answers."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._journal = Journal(self.folder / ANSWERS_FILE)

    def open(self, model: Model, settings: AnswerSettings) -> None:
        """Starts a folder, or checks that it was started with the same model and settings.

        Raises:
            ProbeError: it was not, or it cannot be written to.
        """
        info = model.engine.info
        wanted = as_json(
            {
                "model": info.model_id,
                "revision": info.revision,
                "fingerprint": model.vocabulary.fingerprint,
                "settings": asdict(settings),
            }
        )
        path = self.folder / SETTINGS_FILE
        if path.exists():
            if found := differences(_read_json(path), wanted):
                raise ProbeError(
                    f"{self.folder} holds answers made with other settings: {listed(found)}; choose another folder, or "
                    "delete it"
                )
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, (json.dumps(wanted, indent=1) + "\n").encode())
        except OSError as error:
            raise ProbeError(f"no answers can be written to {self.folder}: {error.strerror}") from error

    @property
    def settings(self) -> dict[str, Any]:
        """Model and settings of the answers.

        Raises:
            ProbeError: The folder holds no answers.
        """
        return _read_json(self.folder / SETTINGS_FILE)

    def read(self) -> list[Answer]:
        """Returns all answers.

        Raises:
            ProbeError: The file is broken.
        """
        try:
            return [_answer(record) for record in self._journal.read()]
        except (KeyError, TypeError, ValueError) as error:
            raise ProbeError(
                f"{self._journal.path} is broken ({error}); delete it and answer again"
            ) from error

    def append(self, answer: Answer) -> None:
        """Stores an answer. Raises ProbeError if it cannot be written."""
        self._journal.append([asdict(answer)])


async def answer_problems(
    target: Model,
    problems: Sequence[ProblemText],
    settings: AnswerSettings,
    answers: Answers,
    *,
    grader: Grader | None = None,
    concurrency: int = 16,
    on_progress: Callable[[Answer | None], None] = lambda _: None,
) -> None:
    """Lets the target answer all problems that are not answered yet, and stores each answer as it is finished.

    An answer depends on the problem, the model and the settings only, not on the other problems (as far as the engine's
    arithmetic does not depend on the batch).

    Args:
        grader: grades answers to problems with a gold answer; None = nothing is graded.
        concurrency: answers in progress at once, which the engine batches.
        on_progress: called with each new answer, and with None for one that existed before.

    Raises:
        ConfigError: Two problems have the same id, or a problem leaves no room for an answer.
        ProbeError: The folder holds other answers, or cannot be written to.
        EngineError: The engine failed.
    """
    if len({problem.problem_id for problem in problems}) < len(problems):
        raise ConfigError("two problems have the same id; give each its own, because ids decide the split")
    answers.open(target, settings)
    done = {(answer.problem_id, answer.sample) for answer in answers.read()}
    todo = [(problem, sample) for problem in problems for sample in range(settings.num_samples)]
    grading = asyncio.Lock()  # a grader grades one answer at a time

    async def work(item: tuple[ProblemText, int]) -> None:
        problem, sample = item
        if (problem.problem_id, sample) in done:
            on_progress(None)
            return
        answer = await _answer_one(target, problem, sample, settings)
        if grader is not None and problem.gold:
            async with grading:
                text = target.vocabulary.decode(answer.token_ids)
                right = await asyncio.to_thread(_is_right, grader, text, problem.gold, answer.finished)
                answer = replace(answer, right=right)
        answers.append(answer)
        on_progress(answer)

    await work_on(todo, work, concurrency)


async def _answer_one(target: Model, problem: ProblemText, sample: int, settings: AnswerSettings) -> Answer:
    prompt_ids = target.vocabulary.render_prompt(problem.prompt)
    info = target.engine.info
    max_tokens = min(settings.max_new_tokens, info.max_context_tokens - len(prompt_ids))
    if max_tokens < 1:
        raise ConfigError(
            f"problem {problem.problem_id!r} has {len(prompt_ids)} tokens and leaves no room for an answer: the target "
            f"takes {info.max_context_tokens}; leave it out"
        )
    (generation,) = await target.engine.generate(
        prompt_ids,
        max_tokens=max_tokens,
        stop=target.segmenter.text_stop,
        sampling=settings.sampling,
        seed=derived_seed(settings.seed, "align", problem.problem_id, sample),
        distributions=info.capabilities.distributions,
    )
    return Answer(
        problem.problem_id,
        sample,
        problem.prompt,
        generation.token_ids,
        generation.stop_reason == "stop",
        None,
        tuple(_nucleus(distribution) for distribution in generation.distributions or ()),
    )


def _is_right(grader: Grader, text: str, gold: str, finished: bool) -> bool:
    return grader.grade(text, gold, truncated=not finished).right


def _nucleus(distribution: Distribution) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Returns the most probable tokens and their probabilities, rounded for storage."""
    order = np.argsort(-distribution.probabilities, kind="stable")[:MAX_NUCLEUS]
    order.sort()  # ids stay ascending
    ids = tuple(int(i) for i in distribution.token_ids[order])
    return ids, tuple(float(f"{p:.5g}") for p in distribution.probabilities[order])


def _answer(record: dict[str, Any]) -> Answer:
    """Reads a line. Answers of other makers may hold no more than problem, prompt and tokens."""
    return Answer(
        str(record["problem_id"]),
        int(record.get("sample", 0)),
        str(record["prompt"]),
        tuple(record["token_ids"]),
        bool(record.get("finished", True)),
        record.get("right"),
        tuple((tuple(ids), tuple(values)) for ids, values in record.get("nuclei", ())),
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProbeError(
            f"{path.parent} holds no answers of the target: {SETTINGS_FILE} cannot be read ({error.strerror}); check "
            "the path"
        ) from error
    except ValueError as error:
        raise ProbeError(f"{path} is broken ({error}); delete the folder and answer again") from error
    if not isinstance(content, dict):
        raise ProbeError(f"{path} is broken; delete the folder and answer again")
    return content


def usable(answers: Iterable[Answer], *, right_only: bool) -> list[Answer]:
    """Returns the answers to train on: those that hold tokens and, if asked for, are known to be right."""
    return [answer for answer in answers if answer.token_ids and (answer.right or not right_only)]
