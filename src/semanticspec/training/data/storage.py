"""A collection on disk: a folder with a manifest and one shard per finished problem.

A shard is two files: a Parquet file with a row per segment, including the context it was written in, and a
safetensors file with the hidden states in the same order (one pooled state per segment or, with the pooling `none`,
one state per token). The Parquet file is written last, so a problem is finished exactly if its Parquet file exists;
a process that is killed loses the problems it was working on and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from semanticspec.engines.base import Pooling
from semanticspec.errors import ProbeError
from semanticspec.output.differences import differences, listed
from semanticspec.output.files import write_atomically
from semanticspec.output.validation import parse_json
from semanticspec.records import Author, StopReason
from semanticspec.training.data.manifest import FORMAT, Manifest
from semanticspec.training.data.parquet import read_parquet, require_pyarrow, to_parquet

if TYPE_CHECKING:
    from torch import Tensor

    from semanticspec.probes.states import States

Origin = Literal["target", "loop", "given"]
MANIFEST_FILE = "manifest.json"
SHARDS_FOLDER = "problems"

_SHARD_METADATA = ("problem_id", "prompt", "skipped")
_LATER_COLUMNS = ("target_margins",)  # collections of earlier versions lack them
_STALE_S = 60.0
_FIX_SHARD = "delete it and collect again"


@dataclass(frozen=True, slots=True)
class ContextRecord:
    """A place in an output at which both models were sampled.

    Attributes:
        origin: who wrote the output so far: the target alone, the speculative loop, or the author of a given trace.
        text: the output so far, without the prompt.
    """

    context_id: str
    origin: Origin
    text: str


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """A segment that a model wrote in a context; equal samples are merged.

    Attributes:
        token_ids: in the author's vocabulary.
        count: number of samples in the context that were this segment.
        target_logprobs: of the target, in nats, one per token in the target's vocabulary.
        draft_logprobs: of the draft, in nats; empty for segments by the target.
        target_ranks, target_entropies, target_margins: see `Score`, one per token in the target's vocabulary; empty if
            they were not recorded, as in collections of earlier versions.
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
    target_margins: tuple[float, ...] = ()


@dataclass(frozen=True)
class Shard:
    """Everything that was collected for one problem.

    Attributes:
        contexts: the contexts that have segments.
        segments: in the order of the contexts.
        target_states: float32 states of the target: `[segments, hidden]`, or with the pooling `none` a `Ragged` of
            one state per token in the target's vocabulary.
        draft_states: the same of the draft; zeros, or no states at all, for segments by the target.
        skipped: why the shard is empty; an empty text if it is not.
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
    def manifest(self) -> Manifest:
        """How the collection was made.

        Raises:
            ProbeError: the folder holds no collection, or one of another format.
        """
        path = self.folder / MANIFEST_FILE
        hint = "collect into a new folder"
        return parse_json(Manifest, self._manifest_text(), str(path), raises=ProbeError, hint=hint)

    @cached_property
    def digest(self) -> str:
        """A digest of the manifest; the stamp of every file that belongs to this collection."""
        content = json.dumps(json.loads(self._manifest_text()))
        return hashlib.blake2b(content.encode(), digest_size=10).hexdigest()

    def _manifest_text(self) -> str:
        try:
            return (self.folder / MANIFEST_FILE).read_text()
        except OSError as error:
            raise ProbeError(
                f"{self.folder} holds no collection; make one with: semanticspec probe collect"
            ) from error

    def pooling(self, role: Author) -> Pooling:
        """Returns how a role's states are pooled."""
        return self.manifest.model_of(role).pooling

    def open(self, manifest: Manifest) -> None:
        """Starts a collection by writing its manifest, or checks that an existing one has the same manifest.

        Raises:
            ProbeError: the collection was made with other models or settings, the folder cannot be written to, or
                pyarrow is missing.
        """
        require_pyarrow()
        path = self.folder / MANIFEST_FILE
        content = manifest.model_dump_json(indent=2) + "\n"
        try:
            (self.folder / SHARDS_FOLDER).mkdir(parents=True, exist_ok=True)
            _remove_stale_parts(self.folder / SHARDS_FOLDER)
            if not path.exists():
                write_atomically(path, content.encode())
                return
        except OSError as error:
            raise ProbeError(f"no collection can be written to {self.folder}: {error.strerror}") from error
        found, wanted = self.manifest, Manifest.model_validate_json(content)
        if found != wanted:
            named = differences(found.model_dump(mode="json"), wanted.model_dump(mode="json"))
            raise ProbeError(
                f"{self.folder} holds a collection made with other settings: {listed(named) or 'of another version'}; "
                "choose another folder, or delete it"
            )

    def has(self, problem_id: str) -> bool:
        """Returns whether a problem is finished."""
        return self._path(problem_id, "parquet").exists()

    def write(self, shard: Shard) -> None:
        """Stores a finished problem.

        Raises:
            ProbeError: the files cannot be written, for example because the disk is full; no part of this problem
                is kept then.
        """
        from safetensors.torch import save

        states = {"target": _values(shard.target_states), "draft": _values(shard.draft_states)}
        rows = _shard_to_parquet(shard, self._stamp)
        states_path = self._path(shard.problem_id, "safetensors")
        try:
            write_atomically(states_path, save(states))
            write_atomically(self._path(shard.problem_id, "parquet"), rows)
        except OSError as error:
            if not self.has(shard.problem_id):
                states_path.unlink(missing_ok=True)
            raise ProbeError(
                f"problem {shard.problem_id!r} cannot be stored in {self.folder}: {error.strerror}; {len(self)} "
                "finished problems are kept; fix this and rerun the same command to resume"
            ) from error

    def __len__(self) -> int:
        """The number of finished problems."""
        return sum(1 for _ in (self.folder / SHARDS_FOLDER).glob("*.parquet"))

    def __iter__(self) -> Iterator[Shard]:
        """Yields all finished problems, sorted by the digests of their ids.

        Raises:
            ProbeError: there is no collection, or a file is broken or belongs to another collection.
        """
        manifest = self.manifest
        for path in sorted((self.folder / SHARDS_FOLDER).glob("*.parquet")):
            shard = _read_shard(path, self._stamp, manifest)
            if self._path(shard.problem_id, "parquet") != path:
                raise ProbeError(
                    f"{path} holds the problem {shard.problem_id!r}, which belongs into another file; {_FIX_SHARD}"
                )
            yield shard

    @property
    def _stamp(self) -> dict[str, str]:
        return {"format": str(FORMAT), "collection": self.digest}

    def _path(self, problem_id: str, suffix: str) -> Path:
        name = hashlib.blake2b(problem_id.encode(), digest_size=10).hexdigest()
        return self.folder / SHARDS_FOLDER / f"{name}.{suffix}"


def _remove_stale_parts(folder: Path) -> None:
    """Removes partial files of processes that were killed; younger ones may belong to a running process."""
    for part in folder.glob(".*.part"):
        if time.time() - part.stat().st_mtime > _STALE_S:
            part.unlink(missing_ok=True)


def _shard_schema() -> Any:
    import pyarrow as pa

    return pa.schema(
        [
            ("context_id", pa.string()),
            ("origin", pa.string()),
            ("context", pa.string()),
            ("author", pa.string()),
            ("text", pa.string()),
            ("count", pa.int32()),
            ("stop_reason", pa.string()),
            ("token_ids", pa.list_(pa.int32())),
            ("target_logprobs", pa.list_(pa.float32())),
            ("draft_logprobs", pa.list_(pa.float32())),
            ("target_ranks", pa.list_(pa.int32())),
            ("target_entropies", pa.list_(pa.float32())),
            ("target_margins", pa.list_(pa.float32())),
        ]
    )


def _shard_to_parquet(shard: Shard, stamp: Mapping[str, str]) -> bytes:
    """Returns a row per segment; what all rows have in common is metadata."""
    contexts = {context.context_id: context for context in shard.contexts}
    if contexts.keys() != {segment.context_id for segment in shard.segments}:
        raise ProbeError(
            f"problem {shard.problem_id!r} has contexts without segments, or segments without context"
        )
    rows = (
        asdict(segment) | {"origin": context.origin, "context": context.text}
        for segment in shard.segments
        if (context := contexts[segment.context_id])
    )
    metadata = {name: getattr(shard, name) for name in _SHARD_METADATA}
    return to_parquet(rows, _shard_schema(), {**stamp, **metadata})


def _read_shard(path: Path, stamp: Mapping[str, str], manifest: Manifest) -> Shard:
    from safetensors import SafetensorError
    from safetensors.torch import load

    rows, metadata = read_parquet(path, _shard_schema(), stamp, _FIX_SHARD, _LATER_COLUMNS)
    try:
        states = load(path.with_suffix(".safetensors").read_bytes())
        contexts, segments = _records(rows)
        shard = Shard(
            contexts=contexts,
            segments=segments,
            target_states=_states_of(states, segments, "target", manifest),
            draft_states=_states_of(states, segments, "draft", manifest),
            **{name: metadata[name] for name in _SHARD_METADATA},
        )
    except (OSError, SafetensorError, TypeError, ValueError, KeyError) as error:
        raise ProbeError(f"{path} or its .safetensors file is broken ({error}); {_FIX_SHARD}") from error
    if not len(shard.segments) == len(shard.target_states) == len(shard.draft_states):
        raise ProbeError(f"{path} and its .safetensors file differ in length; delete both and collect again")
    return shard


def _records(rows: list[dict[str, Any]]) -> tuple[tuple[ContextRecord, ...], tuple[SegmentRecord, ...]]:
    contexts: dict[str, ContextRecord] = {}
    segments: list[SegmentRecord] = []
    for row in rows:
        context = ContextRecord(row["context_id"], row.pop("origin"), row.pop("context"))
        contexts.setdefault(context.context_id, context)
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in row.items()
        }
        segments.append(SegmentRecord(**values))
    return tuple(contexts.values()), tuple(segments)


def _states_of(
    states: Mapping[str, Tensor], segments: Sequence[SegmentRecord], role: Author, manifest: Manifest
) -> States:
    """Returns a role's states by segment: one each or, with the pooling `none`, one per token.

    Raises:
        ValueError: the number of states is not the number of tokens.
    """
    if manifest.model_of(role).pooling != "none":
        return states[role]
    import torch

    from semanticspec.probes.states import Ragged

    logprobs = [
        segment.target_logprobs if role == "target" else segment.draft_logprobs for segment in segments
    ]
    lengths = torch.tensor([len(values) for values in logprobs], dtype=torch.int64)
    if int(lengths.sum()) != len(states[role]):
        raise ValueError(f"{len(states[role])} states of the {role} for {int(lengths.sum())} tokens")
    return Ragged(states[role], lengths)


def _values(states: States) -> Tensor:
    from semanticspec.probes.states import Ragged

    return (states.values if isinstance(states, Ragged) else states).contiguous()
