"""Answers that the target has written already, such as those that a draft was aligned with: traces without decoding.

The folder holds `settings.json` (the model and its settings) and `answers.jsonl` (an answer per line).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from semanticspec.decoding.pair import Model
from semanticspec.engines.base import derived_seed
from semanticspec.errors import ConfigError, ProbeError, first_line
from semanticspec.output.journal import Journal
from semanticspec.output.validation import validation_message
from semanticspec.problems.sources import ProblemText

SETTINGS_FILE = "settings.json"
ANSWERS_FILE = "answers.jsonl"


class WrittenAnswer(BaseModel):
    """What a trace needs of an answer; further fields are ignored.

    Attributes:
        token_ids: in the target's vocabulary.
    """

    problem_id: str
    sample: int = 0
    prompt: str
    token_ids: tuple[int, ...]


@dataclass(frozen=True)
class WrittenAnswers:
    """The answers of a folder.

    Attributes:
        made_by: model, revision and settings that the answers were written with.
        fingerprint: of the vocabulary of the token ids.
        by_problem: the answers by problem, sorted by sample.
    """

    folder: Path
    made_by: dict[str, Any]
    fingerprint: str
    by_problem: dict[str, tuple[WrittenAnswer, ...]]

    @classmethod
    def read(cls, folder: Path | str) -> WrittenAnswers:
        """Reads a folder.

        Raises:
            ProbeError: It holds no answers, or a file is broken.
        """
        folder = Path(folder)
        settings = _settings(folder / SETTINGS_FILE)
        path = folder / ANSWERS_FILE
        try:
            answers = [WrittenAnswer.model_validate(record) for record in Journal(path).read()]
        except ValidationError as error:
            raise ProbeError(
                f"{validation_message(error, str(path))}; expected an answer of the target on each line"
            ) from error
        by_problem: dict[str, list[WrittenAnswer]] = {}
        for answer in sorted(answers, key=lambda answer: answer.sample):
            if answer.token_ids:
                by_problem.setdefault(answer.problem_id, []).append(answer)
        if not by_problem:
            raise ProbeError(f"{folder} holds no answers yet; expected {ANSWERS_FILE} with one answer a line")
        fingerprint = str(settings.pop("fingerprint", ""))
        return cls(folder, settings, fingerprint, {name: tuple(found) for name, found in by_problem.items()})

    def check(self, target: Model, problems: Iterable[ProblemText]) -> None:
        """Checks that the answers are in the target's tokens and answer these prompts.

        The engine may be another one: a GGUF file and a folder of one model have the same vocabulary.

        Raises:
            ConfigError: They are not, or do not.
        """
        if self.fingerprint != target.vocabulary.fingerprint:
            raise ConfigError(
                f"the answers in {self.folder} are by {self.made_by.get('model', 'a model')!r} with the vocabulary "
                f"{self.fingerprint!r}, and the target has the vocabulary {target.vocabulary.fingerprint!r}; use "
                "answers of this target, or leave --answers out"
            )
        for problem in problems:
            if any(answer.prompt != problem.prompt for answer in self.by_problem.get(problem.problem_id, ())):
                raise ConfigError(
                    f"the answer to problem {problem.problem_id!r} in {self.folder} was written for another prompt; "
                    "read the problems from the same source with the same options, or leave --answers out"
                )

    def of(self, problem_id: str, seed: int) -> tuple[int, ...]:
        """Returns the token ids of one of the problem's answers, drawn by the seed; none if it has no answer."""
        found = self.by_problem.get(problem_id, ())
        return found[derived_seed(seed, "answer") % len(found)].token_ids if found else ()


def _settings(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProbeError(
            f"{path.parent} holds no answers of the target: {SETTINGS_FILE} cannot be read ({error.strerror}); check "
            "the path"
        ) from error
    except ValueError as error:
        raise ProbeError(
            f"{path} is not valid JSON ({first_line(error)}); write the answers again"
        ) from error
    if not isinstance(content, dict):
        raise ProbeError(f"{path} is not a JSON object; write the answers again")
    return content
