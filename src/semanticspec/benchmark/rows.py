"""The measurements of one request: a row of `rows.jsonl`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from semanticspec.errors import BenchmarkError
from semanticspec.output.validation import validation_message
from semanticspec.records import Result, Segment

FAILED = "error"
RowKey = tuple[str, str, int, str]
"""Task, problem, sample and method of a request."""


def _without_text(segment: Any) -> Any:
    """Rows hold the text of the whole output, not of its segments."""
    return {"text": "", **segment} if isinstance(segment, Mapping) else segment


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class Row:
    """One request: one sample of one problem, solved by one method.

    Attributes:
        sample: number of the sample of this problem, from 0.
        digest: hash of the prompt and the gold answer, see `BenchProblem.digest`.
        answer: the answer that the grader extracted.
        finish_reason: "stop", "length" (truncated) or "error" (the method failed; see `note`).
        wall_s: wall-clock time of the request, measured by the runner.
        num_tokens, draft_tokens, ...: see `Stats`.
        answer_tokens: tokens after the thinking, estimated from its share of the characters; 0 without think tags.
        segments: all segments in order, including rejected ones; their texts are not stored.
        started_at: UTC time in ISO format.
        block: number of the block of requests it ran in; the same for all methods.
        share_s: wall-clock time of the block divided by its number of requests. Below `wall_s` if requests ran
            concurrently; 0 in rows of versions that did not record it.
        note: why the request failed or could not be graded; otherwise empty.
    """

    task: str
    problem_id: str
    method: str
    sample: int
    seed: int
    digest: str
    gold: str
    answer: str
    right: bool
    finish_reason: str
    wall_s: float
    prompt_tokens: int = 0
    num_tokens: int = 0
    draft_tokens: int = 0
    drafted_tokens: int = 0
    segments_accepted: int = 0
    segments_rejected: int = 0
    draft_s: float = 0.0
    verify_s: float = 0.0
    rewrite_s: float = 0.0
    probe_s: float = 0.0
    answer_tokens: int = 0
    segments: tuple[Annotated[Segment, BeforeValidator(_without_text)], ...] = ()
    started_at: str = ""
    block: int = 0
    share_s: float = 0.0
    text: str = ""
    note: str = ""

    @property
    def key(self) -> RowKey:
        """Identifies the request; a folder has one row per key."""
        return self.task, self.problem_id, self.sample, self.method

    @property
    def truncated(self) -> bool:
        return self.finish_reason == "length"

    @property
    def failed(self) -> bool:
        return self.finish_reason == FAILED

    @property
    def judged(self) -> int:
        """Number of drafted segments that were accepted or rejected."""
        return self.segments_accepted + self.segments_rejected

    def to_json(self) -> dict[str, Any]:
        """Returns the row as it is written; `target_tokens` is added for readers of the file."""
        segments = [
            {name: value for name, value in asdict(segment).items() if name != "text"}
            for segment in self.segments
        ]
        target_tokens = self.num_tokens - self.draft_tokens
        return asdict(self) | {"segments": segments, "target_tokens": target_tokens}

    @classmethod
    def from_json(cls, record: Mapping[str, Any], origin: str = "row") -> Row:
        """Reads a row.

        Args:
            origin: file and line, for the error message.

        Raises:
            BenchmarkError: a field is missing, unknown or of the wrong type.
        """
        values = {name: value for name, value in record.items() if name != "target_tokens"}
        try:
            return _ROW.validate_python(values)
        except ValidationError as error:
            raise BenchmarkError(f"{validation_message(error, origin)}; delete this line") from error


_ROW = TypeAdapter(Row)


def measurements(result: Result) -> dict[str, Any]:
    """Returns the fields of a row that come from a method's result."""
    stats = asdict(result.stats)
    del stats["wall_s"]  # the runner measures it
    answer_share = len(result.answer) / len(result.text) if result.reasoning else 0.0
    return {
        **stats,
        "finish_reason": result.finish_reason,
        "answer_tokens": round(answer_share * result.stats.num_tokens),
        "segments": result.segments,
        "text": result.text,
    }
