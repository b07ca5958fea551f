"""One request's figures, as a line of `rows.jsonl`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from semanticspec.errors import BenchmarkError
from semanticspec.records import Result, Segment

FAILED = "error"
_COUNTS = (
    "prompt_tokens",
    "num_tokens",
    "draft_tokens",
    "drafted_tokens",
    "segments_accepted",
    "segments_rejected",
    "draft_s",
    "verify_s",
    "rewrite_s",
    "probe_s",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One sample of one problem, solved by one method. Right, wrong, truncated and failed ones count alike.

    Attributes:
        sample: number of the sample of this problem, from 0.
        digest: of the prompt and the gold answer, so that rows of other problems are noticed.
        answer: what was graded, as the grader read it.
        finish_reason: "stop", "length" (truncated) or "error" (the method failed; `note` says how).
        wall_s: seconds from the call of the method to its return, measured by the runner.
        num_tokens, draft_tokens, ...: see `Stats`.
        answer_tokens: of what follows the thinking, by its share of the characters; 0 without think tags.
        segments: without their texts, in order, rejected ones included.
        started_at: UTC time, ISO format.
        block: number of the block of requests it ran in, the same for all methods.
        share_s: seconds from the begin of the block to its end over its requests. Less than `wall_s` where several ran
            at once; 0 in rows of before it was measured.
        note: what went wrong, in a line; empty if nothing did.
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
    segments: tuple[Segment, ...] = ()
    started_at: str = ""
    block: int = 0
    share_s: float = 0.0
    text: str = ""
    note: str = ""

    @property
    def key(self) -> tuple[str, str, int, str]:
        """Task, problem, sample and method: there is one row for each."""
        return self.task, self.problem_id, self.sample, self.method

    @property
    def truncated(self) -> bool:
        return self.finish_reason == "length"

    @property
    def failed(self) -> bool:
        return self.finish_reason == FAILED

    def to_json(self) -> dict[str, Any]:
        """Fields by name; tokens by author are spelled out for whoever reads the file."""
        segments = [
            {name: value for name, value in asdict(segment).items() if name != "text"}
            for segment in self.segments
        ]
        target_tokens = self.num_tokens - self.draft_tokens
        return asdict(self) | {"segments": segments, "target_tokens": target_tokens}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Row:
        """The row of a line.

        Raises:
            BenchmarkError: fields are missing.
        """
        values = {name: record[name] for name in (field.name for field in fields(cls)) if name in record}
        try:
            segments = tuple(map(_segment, values.pop("segments", ())))
            return cls(**values, segments=segments)
        except (TypeError, ValueError) as error:
            raise BenchmarkError(f"a row of the benchmark is broken ({error}); delete its line") from error


def _segment(record: Mapping[str, Any]) -> Segment:
    """A segment of a line; lines of before proposals were recorded have none."""
    proposals = tuple((proposed, kept) for proposed, kept in record.get("proposals", ()))
    return Segment(**{"text": "", **record, "proposals": proposals})


def figures_of(result: Result) -> dict[str, Any]:
    """The fields of a row that come from the method's result."""
    answer_share = len(result.answer) / len(result.text) if result.text else 0.0
    return {
        **{name: getattr(result.stats, name) for name in _COUNTS},
        "finish_reason": result.finish_reason,
        "answer_tokens": round(answer_share * result.stats.num_tokens),
        "segments": result.segments,
        "text": result.text,
    }
