"""Outcome labels: the share of the target's continuations from after a segment that reach the right answer.

"Same meaning" rejects a step that is worded or ordered otherwise and does no harm; this label does not. `continuations`
samples and grades; this module stores the results beside the collection and turns them into labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import BaseModel, ValidationError, with_config

from semanticspec.errors import ConfigError, ProbeError
from semanticspec.output.differences import as_json, differences, listed
from semanticspec.output.journal import Journal
from semanticspec.output.validation import STRICT, validation_message
from semanticspec.records import Author
from semanticspec.training.data.storage import Collection, Shard
from semanticspec.training.labels.meanings import digest_of

OUTCOME = "outcome"
"""Stands where other labels have the name of their judge: in files, options and cards."""

OUTCOMES_FILE = "outcomes.jsonl"
OUTCOMES_FORMAT = 1
_MAKE = "semanticspec probe outcomes"


@with_config(STRICT)
@dataclass(frozen=True, slots=True)
class OutcomeSettings:
    """What is sampled for outcome labels.

    Attributes:
        num_samples: continuations from after each segment, >= 2.
        segments_per_context: distinct draft-written segments of a context that are continued, drawn at random.
        baseline: also continues each context itself, to tell what a segment costs.
        max_new_tokens: length limit of a continuation; a longer one is right only if it holds a boxed answer.
        num_references: answers whose majority is the reference where a problem has no gold answer, >= 2.
        task: benchmark task whose grader is used.
        seed: seeds everything random, together with the problem's id.
    """

    num_samples: int = 4
    segments_per_context: int = 2
    baseline: bool = True
    max_new_tokens: int = 1024
    num_references: int = 5
    task: str = "custom"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            ("num_samples", 2),
            ("segments_per_context", 1),
            ("max_new_tokens", 1),
            ("num_references", 2),
        ):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected {least} or more")


class ProblemOutcomes(BaseModel):
    """The outcomes of a problem; also a line of the file.

    Attributes:
        texts: a digest of the segments, see `digest_of`.
        num_segments: all segments of the problem, measured or not.
        reference: the answer that counts as right; empty if there is none, and then nothing is measured.
        source: where it comes from: the problem's gold answer, or the majority of the target's answers.
        segments: for each measured segment, by its number, whether each continuation from after it is right.
        contexts: the same for continuations of the contexts themselves, by context.
    """

    model_config = STRICT

    problem_id: str
    texts: str
    num_segments: int
    reference: str = ""
    source: Literal["gold", "majority", "none"] = "none"
    segments: dict[str, list[bool]] = {}
    contexts: dict[str, list[bool]] = {}

    def __len__(self) -> int:
        return self.num_segments

    def of(self, segment: int) -> list[bool]:
        """Returns whether each continuation is right; an empty list for a segment that was not measured."""
        return self.segments.get(str(segment), [])

    def labels(self, role: Author) -> list[float | None]:
        """Returns each segment's share of right continuations; None for segments that were not measured.

        Raises:
            ProbeError: the role is the draft: what the target reaches says nothing about what the draft would say.
        """
        if role == "draft":
            raise ProbeError(
                "outcome labels are for the target's probe; train the draft's probe on the labels of a judge "
                "(semanticspec probe label)"
            )
        return [_share(right) if (right := self.of(i)) else None for i in range(len(self))]

    def halves(self) -> list[tuple[float, float]]:
        """Returns each segment's label from each half of its continuations; they differ by sampling noise only."""
        found = []
        for index in range(len(self)):
            right = self.of(index)
            half = len(right) // 2
            found.append((_share(right[:half]), _share(right[half : 2 * half])) if half else (0.0, 0.0))
        return found


class OutcomeStore:
    """The outcomes that were measured in a collection: a journal beside it, with its settings on the first line."""

    def __init__(self, collection: Collection) -> None:
        """Reads existing outcomes.

        Raises:
            ProbeError: there is no collection, or the file is broken or belongs to another collection.
        """
        self._collection = collection
        self._journal = Journal(collection.folder / OUTCOMES_FILE)
        records = self._journal.read()
        self.stamp: dict[str, Any] = records[0] if records else {}
        path = self._journal.path
        stamp = {"format": OUTCOMES_FORMAT, "collection": collection.digest}
        if self.stamp and {name: self.stamp.get(name) for name in stamp} != stamp:
            raise ProbeError(
                f"{path} belongs to another collection or version; delete it and run {_MAKE} again"
            )
        try:
            found = [ProblemOutcomes.model_validate(record) for record in records[1:]]
        except ValidationError as error:
            raise ProbeError(
                f"{validation_message(error, str(path))}; delete the file and run {_MAKE} again"
            ) from error
        self.measured = {one.problem_id: one for one in found}

    def open(self, settings: OutcomeSettings, made_by: dict[str, str]) -> None:
        """Starts the file, or checks that it was started with the same settings and target.

        Args:
            made_by: the target that continues.

        Raises:
            ProbeError: it was started with others, or cannot be written.
        """
        stamp = as_json(
            {
                "format": OUTCOMES_FORMAT,
                "collection": self._collection.digest,
                "settings": asdict(settings),
                "made_by": made_by,
            }
        )
        if not self.stamp:
            self._journal.append([stamp])
            self.stamp = stamp
        elif found := differences(self.stamp, stamp):
            raise ProbeError(
                f"{self._journal.path} was made with other settings: {listed(found)}; use the same, or delete it"
            )

    def has(self, shard: Shard) -> bool:
        """Returns whether exactly these segments have been measured."""
        known = self.measured.get(shard.problem_id)
        return known is not None and known.texts == digest_of(shard)

    def add(self, outcomes: ProblemOutcomes) -> None:
        """Stores the outcomes of a problem; they are on disk when this returns."""
        self._journal.append([outcomes.model_dump()])
        self.measured[outcomes.problem_id] = outcomes


def read_outcomes(collection: Collection) -> dict[str, ProblemOutcomes]:
    """Returns the outcomes by problem, without segments for a problem that was not measured.

    Raises:
        ProbeError: there are none, or they are of other segments.
    """
    store = OutcomeStore(collection)
    if not any(one.segments for one in store.measured.values()):
        raise ProbeError(
            f"{collection.folder} has no outcome labels; make them with: {_MAKE} --data {collection.folder}"
        )
    found: dict[str, ProblemOutcomes] = {}
    for shard in collection:
        if shard.problem_id in store.measured and not store.has(shard):
            raise ProbeError(
                f"the outcomes of problem {shard.problem_id!r} are of other segments; run {_MAKE} --data "
                f"{collection.folder} again"
            )
        found[shard.problem_id] = store.measured.get(shard.problem_id) or unmeasured(shard)
    return found


def unmeasured(shard: Shard) -> ProblemOutcomes:
    """Returns the record of a problem without outcomes."""
    return ProblemOutcomes(
        problem_id=shard.problem_id, texts=digest_of(shard), num_segments=len(shard.segments)
    )


def _share(right: Sequence[bool]) -> float:
    return sum(right) / len(right)
