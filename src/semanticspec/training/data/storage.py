"""What a collection has on disk: one shard for each finished problem, and a manifest that says how it was
made.

A shard is a Parquet file (a row for each segment, with the context it was written in) and a safetensors file
(states, in the same order: a pooled one a segment, or, with the pooling `none`, one for each of its tokens). The
Parquet file is written last, so a problem counts as finished exactly when it is there; a kill in the middle loses
one problem's work.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from semanticspec.engines.base import LAST_LAYER, Pooling
from semanticspec.errors import ProbeError
from semanticspec.output.files import write_atomically
from semanticspec.records import Author, StopReason

if TYPE_CHECKING:
    from torch import Tensor

    from semanticspec.probes.states import States

Origin = Literal["target", "loop", "given"]
FORMAT = 2
MANIFEST_FILE = "manifest.json"
SHARDS_FOLDER = "problems"

_LISTS = {
    "token_ids": "int32",
    "target_logprobs": "float32",
    "draft_logprobs": "float32",
    "target_ranks": "int32",
    "target_entropies": "float32",
}
_COLUMNS = {
    "context_id": "string",
    "origin": "string",
    "context": "string",
    "author": "string",
    "text": "string",
    "count": "int32",
    "stop_reason": "string",
}
_HEAD = ("problem_id", "prompt", "skipped")
_STAMP = ("format", "collection")
_STALE_S = 60.0


@dataclass(frozen=True, slots=True)
class ContextRecord:
    """A place in an output at which both models were sampled.

    Attributes:
        origin: who wrote the text so far: the target alone, the speculative loop, or whoever wrote a trace that
            was given.
        text: the output so far, without the prompt.
    """

    context_id: str
    origin: Origin
    text: str


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """A segment some model wrote in a context; equal samples are one record.

    Attributes:
        token_ids: in the writer's tokens.
        count: how many of the context's samples were this one.
        target_logprobs: nats, under the target, in the target's tokens.
        draft_logprobs: nats, under the draft; empty for segments the target wrote.
        target_ranks, target_entropies: see `Score`, in the target's tokens; empty if they were not recorded.
    """

    context_id: str
    author: Author
    text: str
    token_ids: tuple[int, ...]
    count: int
    stop_reason: StopReason
    target_logprobs: tuple[float, ...]
    draft_logprobs: tuple[float, ...] = ()
    target_ranks: tuple[int, ...] = ()
    target_entropies: tuple[float, ...] = ()


@dataclass(frozen=True)
class Shard:
    """Everything collected for one problem.

    Attributes:
        contexts: those with segments.
        segments: by context, in order.
        target_states: `[segments, hidden]`, float32: pooled states of the target, one for every segment; or, where
            the pooling is `none`, all of every segment, as many as it has log-probabilities under the target.
        draft_states: the same of the draft: zeros, or none at all, for segments the target wrote.
        skipped: why there is nothing in it, empty otherwise.
    """

    problem_id: str
    prompt: str
    contexts: tuple[ContextRecord, ...]
    segments: tuple[SegmentRecord, ...]
    target_states: States
    draft_states: States
    skipped: str = ""


class Collection:
    """A folder of shards."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    @property
    def manifest(self) -> dict[str, Any]:
        """How the collection was made; what older ones do not say of their states is filled in.

        Raises:
            ProbeError: the folder holds no collection, or one of a newer format.
        """
        content = self._stored_manifest()
        for role in get_args(Author):
            if isinstance(content.get(role), dict):
                content[role] = {"layer": LAST_LAYER, "pooling": "mean", **content[role]}
        return content

    def pooling(self, role: Author) -> Pooling:
        """How the engine pooled a role's states."""
        model = self.manifest.get(role)
        return cast(Pooling, model["pooling"]) if isinstance(model, dict) else "mean"

    def _stored_manifest(self) -> dict[str, Any]:
        path = self.folder / MANIFEST_FILE
        try:
            content = json.loads(path.read_text())
        except OSError as error:
            raise ProbeError(
                f"{self.folder} holds no collection; make one with: semanticspec probe collect"
            ) from error
        except json.JSONDecodeError as error:
            raise ProbeError(f"{path} is broken ({error}); collect into a new folder") from error
        found = content.get("format") if isinstance(content, dict) else None
        if found != FORMAT:
            raise ProbeError(
                f"{path} is of format {found}, this version of semanticspec reads {FORMAT}; collect into a new folder"
            )
        return dict(content)

    def open(self, manifest: dict[str, Any]) -> None:
        """Writes the manifest of a new collection, or checks that an existing one was begun in the same way.

        Raises:
            ProbeError: the folder holds a collection of other models or settings, cannot be written to, or
                pyarrow is missing.
        """
        check_parquet()
        wanted = json.loads(json.dumps({"format": FORMAT, **manifest}))
        try:
            (self.folder / SHARDS_FOLDER).mkdir(parents=True, exist_ok=True)
            _sweep(self.folder / SHARDS_FOLDER)
            if not (self.folder / MANIFEST_FILE).exists():
                write_atomically(self.folder / MANIFEST_FILE, (json.dumps(wanted, indent=2) + "\n").encode())
                return
        except OSError as error:
            raise ProbeError(f"no collection can be written to {self.folder}: {error.strerror}") from error
        found = self.manifest
        differing = sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
        if differing:
            raise ProbeError(
                f"{self.folder} holds a collection made with other {', '.join(differing)}; "
                "choose another folder, or delete it"
            )

    def has(self, problem_id: str) -> bool:
        """Whether a problem is finished."""
        return self._path(problem_id, "parquet").exists()

    def write(self, shard: Shard) -> None:
        """Stores a finished problem.

        Raises:
            ProbeError: the disk is full, or does not take the files for another reason; nothing of this
                problem is left on it.
        """
        from safetensors.torch import save

        states = {"target": _values(shard.target_states), "draft": _values(shard.draft_states)}
        rows = _to_parquet(shard, self.digest)
        states_path = self._path(shard.problem_id, "safetensors")
        try:
            write_atomically(states_path, save(states))
            write_atomically(self._path(shard.problem_id, "parquet"), rows)
        except OSError as error:
            if not self.has(shard.problem_id):
                states_path.unlink(missing_ok=True)
            raise ProbeError(
                f"problem {shard.problem_id!r} could not be stored in {self.folder}: {error.strerror}; the "
                f"{len(self)} finished problems are kept: mend that and run the same command again to go on"
            ) from error

    def __len__(self) -> int:
        """How many problems are finished."""
        return sum(1 for _ in (self.folder / SHARDS_FOLDER).glob("*.parquet"))

    def __iter__(self) -> Iterator[Shard]:
        """All finished problems, in an order that does not depend on when they were finished.

        Raises:
            ProbeError: a file is broken, or does not belong here.
        """
        paths = sorted((self.folder / SHARDS_FOLDER).glob("*.parquet"))
        poolings = {role: self.pooling(role) for role in get_args(Author)} if paths else {}
        for path in paths:
            shard = _read_shard(path, self.digest, poolings)
            if self._path(shard.problem_id, "parquet") != path:
                raise ProbeError(
                    f"{path} holds another problem than its name says; delete it and collect again"
                )
            yield shard

    @cached_property
    def digest(self) -> str:
        """What everything that belongs to this collection is stamped with."""
        return hashlib.blake2b(json.dumps(self._stored_manifest()).encode(), digest_size=10).hexdigest()

    def _path(self, problem_id: str, suffix: str) -> Path:
        name = hashlib.blake2b(problem_id.encode(), digest_size=10).hexdigest()
        return self.folder / SHARDS_FOLDER / f"{name}.{suffix}"


def _sweep(folder: Path) -> None:
    """Removes what a killed process left half written. Writing takes a moment, so a minute is old."""
    for part in folder.glob(".*.part"):
        if time.time() - part.stat().st_mtime > _STALE_S:
            part.unlink(missing_ok=True)


def check_parquet() -> None:
    """Raises ProbeError where there is no pyarrow: better at once than after an hour's work."""
    arrow_module("pyarrow")


def arrow_module(name: str) -> Any:
    """pyarrow or a part of it; raises ProbeError where there is none."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ProbeError(
            "collections and labels are Parquet files, and pyarrow is missing; run: pip install 'semanticspec[probes]'"
        ) from error


def _to_parquet(shard: Shard, collection: str) -> bytes:
    """A shard's rows; what holds for all of them is in the schema's metadata."""
    arrow, parquet = arrow_module("pyarrow"), arrow_module("pyarrow.parquet")
    contexts = {context.context_id: context for context in shard.contexts}
    if contexts.keys() != {segment.context_id for segment in shard.segments}:
        raise ProbeError(f"problem {shard.problem_id!r} has contexts without segments, or segments without")
    records = [
        asdict(segment) | {"origin": context.origin, "context": context.text}
        for segment in shard.segments
        if (context := contexts[segment.context_id])
    ]
    stamp = {"format": str(FORMAT), "collection": collection}
    head = {name: str(getattr(shard, name)) for name in _HEAD}
    table = arrow.Table.from_pylist(records, schema=_schema(arrow).with_metadata({**stamp, **head}))
    buffer = BytesIO()
    parquet.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _schema(arrow: Any) -> Any:
    plain = [arrow.field(name, getattr(arrow, kind)()) for name, kind in _COLUMNS.items()]
    lists = [arrow.field(name, arrow.list_(getattr(arrow, kind)())) for name, kind in _LISTS.items()]
    return arrow.schema(plain + lists)


def _read_shard(path: Path, collection: str, poolings: Mapping[Author, Pooling]) -> Shard:
    from safetensors import SafetensorError
    from safetensors.torch import load

    arrow, parquet = arrow_module("pyarrow"), arrow_module("pyarrow.parquet")
    try:
        table = parquet.read_table(BytesIO(path.read_bytes()))
        head = _checked_head(path, table, collection)
        states = load(path.with_suffix(".safetensors").read_bytes())
        contexts, segments = _records(table.to_pylist())
        shard = Shard(
            contexts=contexts,
            segments=segments,
            target_states=_of_segments(states, segments, "target", poolings),
            draft_states=_of_segments(states, segments, "draft", poolings),
            **head,
        )
    except (OSError, SafetensorError, arrow.ArrowException, TypeError, ValueError, KeyError) as error:
        raise ProbeError(f"{path} is broken ({error}); delete it and collect again to replace it") from error
    if not len(shard.segments) == len(shard.target_states) == len(shard.draft_states):
        raise ProbeError(f"{path} and the states beside it differ in length; delete both and collect again")
    return shard


def _of_segments(
    states: Mapping[str, Tensor],
    segments: Sequence[SegmentRecord],
    role: Author,
    poolings: Mapping[Author, Pooling],
) -> States:
    """A role's states by segment: one each, or as many as the segment has tokens under the role's model.

    Raises:
        ValueError: there are more or fewer of them.
    """
    if poolings[role] != "none":
        return states[role]
    import torch

    from semanticspec.probes.states import Ragged

    of_role = [
        segment.target_logprobs if role == "target" else segment.draft_logprobs for segment in segments
    ]
    lengths = torch.tensor([len(logprobs) for logprobs in of_role], dtype=torch.int64)
    if int(lengths.sum()) != len(states[role]):
        raise ValueError(f"{len(states[role])} states of the {role} for {int(lengths.sum())} tokens")
    return Ragged(states[role], lengths)


def _values(states: States) -> Tensor:
    from semanticspec.probes.states import Ragged

    return (states.values if isinstance(states, Ragged) else states).contiguous()


def _checked_head(path: Path, table: Any, collection: str) -> dict[str, str]:
    """What the schema's metadata say about the problem.

    Raises:
        ProbeError: the file is no shard, of another format, or of another collection.
    """
    metadata = {name.decode(): text.decode() for name, text in (table.schema.metadata or {}).items()}
    found = metadata.get("format", "unknown")
    expected = _schema(arrow_module("pyarrow"))
    if found != str(FORMAT) or not {*_HEAD, *_STAMP} <= metadata.keys() or not table.schema.equals(expected):
        raise ProbeError(
            f"{path} is no shard of format {FORMAT} (its format is {found}); it belongs elsewhere, move it away"
        )
    if metadata["collection"] != collection:
        raise ProbeError(f"{path} is of another collection (other models or settings); move it away")
    return {name: metadata[name] for name in _HEAD}


def _records(rows: list[dict[str, Any]]) -> tuple[tuple[ContextRecord, ...], tuple[SegmentRecord, ...]]:
    contexts: dict[str, ContextRecord] = {}
    segments: list[SegmentRecord] = []
    for row in rows:
        context = ContextRecord(row["context_id"], row.pop("origin"), row.pop("context"))
        contexts.setdefault(context.context_id, context)
        segments.append(SegmentRecord(**row | {name: tuple(row[name]) for name in _LISTS}))
    return tuple(contexts.values()), tuple(segments)
