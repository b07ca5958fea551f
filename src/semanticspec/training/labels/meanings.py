"""A judge's verdicts on a collection, on disk: the meaning of each segment, by problem.

While a judge works, each finished problem is appended to a journal; when all are finished, the journal becomes a
Parquet file with a row per problem. Both are stamped with the judge and the collection, so that the verdicts of
another judge, or on other segments, are never used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from semanticspec.errors import ProbeError
from semanticspec.output.files import write_atomically
from semanticspec.output.journal import Journal
from semanticspec.output.validation import STRICT, validation_message
from semanticspec.training.data.parquet import check_stamp, read_parquet, require_pyarrow, to_parquet
from semanticspec.training.data.storage import Collection, Shard

MEANINGS_FORMAT = 1
_FIX = "delete it and label again"


class JudgedProblem(BaseModel):
    """A row of the file.

    Attributes:
        texts: a digest of the texts that were judged, see `digest_of`.
        meanings: a number for each segment; equal numbers in a context mean the same.
    """

    model_config = STRICT

    problem_id: str
    texts: str
    meanings: list[int]


class MeaningsStore:
    """The meanings that one judge found in one collection, by problem."""

    def __init__(self, collection: Collection, judge_name: str, identity: str | None = None) -> None:
        """Reads existing verdicts.

        Args:
            collection: what is judged.
            judge_name: names the files.
            identity: of the judge (see `Judge`), if it is going to add verdicts; None for reading only.

        Raises:
            ProbeError: there is no collection; a file is broken, or belongs to another judge or collection; or
                pyarrow is missing.
        """
        require_pyarrow()
        self._parquet = collection.folder / f"meanings-{judge_name}.parquet"
        self._journal = Journal(collection.folder / f"meanings-{judge_name}.journal.jsonl")
        self._stamp = {"format": str(MEANINGS_FORMAT), "judge": judge_name, "collection": collection.digest}
        if identity is not None:
            self._stamp["identity"] = identity
        self._journal_started = False
        self.judged: dict[str, JudgedProblem] = {**self._read_parquet(), **self._read_journal()}

    def has(self, shard: Shard) -> bool:
        """Returns whether exactly these segments have been judged."""
        known = self.judged.get(shard.problem_id)
        return known is not None and known.texts == digest_of(shard)

    def add(self, shard: Shard, meanings: list[int]) -> None:
        """Stores the meanings of a problem; they are on disk when this returns."""
        judged = JudgedProblem(problem_id=shard.problem_id, texts=digest_of(shard), meanings=meanings)
        self._journal.append(([] if self._journal_started else [self._stamp]) + [judged.model_dump()])
        self._journal_started = True
        self.judged[shard.problem_id] = judged

    def finish(self) -> None:
        """Turns the journal into the Parquet file."""
        if self._parquet.exists() and not self._journal.path.exists():
            return
        rows = (self.judged[name].model_dump() for name in sorted(self.judged))
        try:
            write_atomically(self._parquet, to_parquet(rows, _schema(), self._stamp))
        except OSError as error:
            raise ProbeError(
                f"cannot write {self._parquet}: {error.strerror}; verdicts so far are kept; rerun the same command "
                "to resume"
            ) from error
        self._journal.path.unlink(missing_ok=True)

    def _read_parquet(self) -> dict[str, JudgedProblem]:
        if not self._parquet.exists():
            return {}
        rows, _ = read_parquet(self._parquet, _schema(), self._stamp, _FIX)
        return _by_problem(self._parquet, rows)

    def _read_journal(self) -> dict[str, JudgedProblem]:
        records = self._journal.read()
        self._journal_started = bool(records)
        if not records:
            return {}
        check_stamp(self._journal.path, records[0], self._stamp, _FIX)
        return _by_problem(self._journal.path, records[1:])


def digest_of(shard: Shard) -> str:
    """Returns a digest of everything that a judge reads of a problem."""
    contexts = [[context.context_id, context.text] for context in shard.contexts]
    segments = [[segment.context_id, segment.text] for segment in shard.segments]
    content = json.dumps([shard.prompt, contexts, segments])
    return hashlib.blake2b(content.encode(), digest_size=10).hexdigest()


def _by_problem(path: Path, rows: Iterable[dict[str, Any]]) -> dict[str, JudgedProblem]:
    try:
        judged = [JudgedProblem.model_validate(row) for row in rows]
    except ValidationError as error:
        raise ProbeError(f"{validation_message(error, str(path))}; {_FIX}") from error
    return {one.problem_id: one for one in judged}


def _schema() -> Any:
    import pyarrow as pa

    return pa.schema(
        [("problem_id", pa.string()), ("texts", pa.string()), ("meanings", pa.list_(pa.int32()))]
    )
