"""Answers that the target has written already, such as those that a draft was aligned with: traces without decoding."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semanticspec.decoding.pair import Model
from semanticspec.engines.base import derived_seed
from semanticspec.errors import ConfigError, ProbeError
from semanticspec.problems.sources import ProblemText
from semanticspec.training.align.answers import Answer, Answers


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
    by_problem: dict[str, tuple[Answer, ...]]

    @classmethod
    def read(cls, folder: Path | str) -> WrittenAnswers:
        """Reads a folder.

        Raises:
            ProbeError: It holds no answers, or a file is broken.
        """
        found = Answers(folder)
        settings = found.settings
        by_problem: dict[str, list[Answer]] = {}
        for answer in sorted(found.read(), key=lambda answer: answer.sample):
            if answer.token_ids:
                by_problem.setdefault(answer.problem_id, []).append(answer)
        if not by_problem:
            raise ProbeError(
                f"{folder} holds no answers yet; let the target answer: semanticspec draft align"
            )
        fingerprint = str(settings.pop("fingerprint", ""))
        answers = {name: tuple(listed) for name, listed in by_problem.items()}
        return cls(found.folder, settings, fingerprint, answers)

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
