"""What a judge said about a collection, on disk.

While a judge works, every finished problem is a line of a journal; when all are done, the journal becomes a
Parquet file with a row for each problem. Both are stamped with the judge and the collection, so that words of
another judge, or about other segments, are never taken for these.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from semanticspec.errors import ProbeError, first_line
from semanticspec.output.files import write_atomically
from semanticspec.output.journal import Journal
from semanticspec.training.data.storage import Collection, Shard, arrow_module

MEANINGS_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Judged:
    """The meanings of a problem's segments, and a digest of the texts they were judged from."""

    texts: str
    meanings: tuple[int, ...]


class MeaningsStore:
    """The meanings that one judge found in one collection, by problem."""

    def __init__(self, collection: Collection, judge_name: str, identity: str | None = None) -> None:
        """Reads what is there.

        Args:
            identity: of the judge that goes on judging (see `Judge`); None when only reading.

        Raises:
            ProbeError: there is no collection; the files are broken, or of another judge or collection; pyarrow
                is missing.
        """
        arrow_module("pyarrow.parquet")  # better at once than after an hour's work
        self._parquet = collection.folder / f"meanings-{judge_name}.parquet"
        self._journal = Journal(collection.folder / f"meanings-{judge_name}.journal.jsonl")
        self._stamp = {
            "format": str(MEANINGS_FORMAT),
            "judge": judge_name,
            "collection": collection.digest,
            "identity": identity,
        }
        self._begun = False  # whether the journal has its first line
        self.judged: dict[str, Judged] = {**self._read_parquet(), **self._read_journal()}

    def has(self, shard: Shard) -> bool:
        """Whether these very segments have been judged."""
        known = self.judged.get(shard.problem_id)
        return known is not None and known.texts == digest_of(shard)

    def add(self, shard: Shard, meanings: list[int]) -> None:
        """Stores the meanings of a problem at once; they survive a kill from the moment this returns."""
        judged = Judged(digest_of(shard), tuple(meanings))
        record = {"problem_id": shard.problem_id, "texts": judged.texts, "meanings": meanings}
        self._journal.append([record] if self._begun else [self._stamp, record])
        self._begun = True
        self.judged[shard.problem_id] = judged

    def finish(self) -> None:
        """Turns the journal into the Parquet file."""
        if self._parquet.exists() and not self._journal.path.exists():
            return
        arrow, parquet = arrow_module("pyarrow"), arrow_module("pyarrow.parquet")
        rows = [
            {"problem_id": name, "texts": judged.texts, "meanings": judged.meanings}
            for name, judged in sorted(self.judged.items())
        ]
        stamp = {name: value for name, value in self._stamp.items() if value is not None}
        buffer = BytesIO()
        table = arrow.Table.from_pylist(rows, schema=_schema().with_metadata(stamp))
        parquet.write_table(table, buffer, compression="zstd")
        try:
            write_atomically(self._parquet, buffer.getvalue())
        except OSError as error:
            raise ProbeError(
                f"cannot write {self._parquet}: {error.strerror}; what was judged is kept, the same command goes on"
            ) from error
        self._journal.path.unlink(missing_ok=True)

    def _read_parquet(self) -> dict[str, Judged]:
        arrow, parquet = arrow_module("pyarrow"), arrow_module("pyarrow.parquet")
        try:
            table = parquet.read_table(BytesIO(self._parquet.read_bytes()))
        except FileNotFoundError:
            return {}
        except (OSError, arrow.ArrowException) as error:
            raise ProbeError(
                f"{self._parquet} is broken ({first_line(error)}); delete it and label again"
            ) from error
        metadata = {key.decode(): text.decode() for key, text in (table.schema.metadata or {}).items()}
        self._check(self._parquet, metadata)
        if not table.schema.equals(_schema()):
            raise ProbeError(
                f"{self._parquet} has other columns than meanings have; delete it and label again"
            )
        return _by_problem(table.to_pylist())

    def _read_journal(self) -> dict[str, Judged]:
        records = self._journal.read()
        self._begun = bool(records)
        if not records:
            return {}
        self._check(self._journal.path, records[0])
        try:
            return _by_problem(records[1:])
        except (KeyError, TypeError, ValueError) as error:
            raise ProbeError(
                f"{self._journal.path} is broken ({error}); delete it and label again"
            ) from error

    def _check(self, path: Path, stamp: dict[str, Any]) -> None:
        """Raises ProbeError for a file of another format, judge or collection."""
        mend = "delete it and label again"
        if stamp.get("format") != self._stamp["format"]:
            raise ProbeError(f"{path} holds no meanings of format {MEANINGS_FORMAT}; {mend}")
        if stamp.get("judge") != self._stamp["judge"]:
            raise ProbeError(f"{path} was made by the judge {stamp.get('judge')}; {mend}")
        if stamp.get("collection") != self._stamp["collection"]:
            raise ProbeError(f"{path} is about another collection (other models or settings); {mend}")
        wanted = self._stamp["identity"]
        if wanted is not None and stamp.get("identity") != wanted:
            raise ProbeError(
                f"{path} was made with {stamp.get('identity')!r}, the judge is now {wanted!r}; {mend}, or use the "
                "same model"
            )


def digest_of(shard: Shard) -> str:
    """Of everything a judge reads of a problem."""
    contexts = [[context.context_id, context.text] for context in shard.contexts]
    segments = [[segment.context_id, segment.text] for segment in shard.segments]
    content = json.dumps([shard.prompt, contexts, segments])
    return hashlib.blake2b(content.encode(), digest_size=10).hexdigest()


def _by_problem(rows: list[dict[str, Any]]) -> dict[str, Judged]:
    return {
        str(row["problem_id"]): Judged(str(row["texts"]), tuple(int(meaning) for meaning in row["meanings"]))
        for row in rows
    }


def _schema() -> Any:
    arrow = arrow_module("pyarrow")
    return arrow.schema(
        [("problem_id", arrow.string()), ("texts", arrow.string()), ("meanings", arrow.list_(arrow.int32()))]
    )
