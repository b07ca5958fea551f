"""What a collection has on disk: one shard for each finished problem, and a manifest that says how it was
made.

A shard is a JSONL file (contexts and segments) and a safetensors file (pooled states). The JSONL file is
written last, so a problem counts as finished exactly when it is there; a kill in the middle loses one
problem's work.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from semanticspec.errors import ProbeError
from semanticspec.files import write_atomically
from semanticspec.records import Author, StopReason

if TYPE_CHECKING:
    from torch import Tensor

Origin = Literal["target", "loop"]
FORMAT = 1
MANIFEST_FILE = "manifest.json"
SHARDS_FOLDER = "problems"


@dataclass(frozen=True, slots=True)
class ContextRecord:
    """A place in an output at which both models were sampled.

    Attributes:
        origin: whether the text so far was written by the target alone or by the speculative loop.
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
        segments: by context, in order.
        target_states: `[segments, hidden]`, float32: pooled states of the target, one for every segment.
        draft_states: `[segments, hidden of the draft]`, float32; zeros for segments the target wrote.
        skipped: why there is nothing in it, empty otherwise.
    """

    problem_id: str
    prompt: str
    contexts: tuple[ContextRecord, ...]
    segments: tuple[SegmentRecord, ...]
    target_states: Tensor
    draft_states: Tensor
    skipped: str = ""


class Collection:
    """A folder of shards."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)

    @property
    def manifest(self) -> dict[str, Any]:
        """How the collection was made.

        Raises:
            ProbeError: the folder holds no collection, or one of a newer format.
        """
        path = self.folder / MANIFEST_FILE
        try:
            content = json.loads(path.read_text())
        except OSError as error:
            raise ProbeError(
                f"{self.folder} holds no collection; make one with: semanticspec probe collect"
            ) from error
        except json.JSONDecodeError as error:
            raise ProbeError(f"{path} is broken ({error}); collect into a new folder") from error
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ProbeError(f"{path} is not of format {FORMAT}; collect with this version of semanticspec")
        return content

    def open(self, manifest: dict[str, Any]) -> None:
        """Writes the manifest of a new collection, or checks that an existing one was begun in the same way.

        Raises:
            ProbeError: the folder holds a collection of other models or settings.
        """
        wanted = json.loads(json.dumps({"format": FORMAT, **manifest}))
        (self.folder / SHARDS_FOLDER).mkdir(parents=True, exist_ok=True)
        if not (self.folder / MANIFEST_FILE).exists():
            write_atomically(self.folder / MANIFEST_FILE, (json.dumps(wanted, indent=2) + "\n").encode())
            return
        found = self.manifest
        differing = sorted(key for key in found.keys() | wanted.keys() if found.get(key) != wanted.get(key))
        if differing:
            raise ProbeError(
                f"{self.folder} holds a collection made with other {', '.join(differing)}; "
                "choose another folder, or delete it"
            )

    def has(self, problem_id: str) -> bool:
        """Whether a problem is finished."""
        return self._path(problem_id, "jsonl").exists()

    def write(self, shard: Shard) -> None:
        """Stores a finished problem."""
        from safetensors.torch import save

        states = {"target": shard.target_states.contiguous(), "draft": shard.draft_states.contiguous()}
        head = {"problem_id": shard.problem_id, "prompt": shard.prompt, "skipped": shard.skipped}
        records = [
            {"kind": "problem", **head},
            *({"kind": "context", **asdict(context)} for context in shard.contexts),
            *({"kind": "segment", **asdict(segment)} for segment in shard.segments),
        ]
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        write_atomically(self._path(shard.problem_id, "safetensors"), save(states))
        write_atomically(self._path(shard.problem_id, "jsonl"), lines.encode())

    def __len__(self) -> int:
        """How many problems are finished."""
        return sum(1 for _ in (self.folder / SHARDS_FOLDER).glob("*.jsonl"))

    def __iter__(self) -> Iterator[Shard]:
        """All finished problems, in an order that does not depend on when they were finished."""
        for path in sorted((self.folder / SHARDS_FOLDER).glob("*.jsonl")):
            yield _read_shard(path)

    def _path(self, problem_id: str, suffix: str) -> Path:
        name = hashlib.blake2b(problem_id.encode(), digest_size=10).hexdigest()
        return self.folder / SHARDS_FOLDER / f"{name}.{suffix}"


def _read_shard(path: Path) -> Shard:
    from safetensors import SafetensorError
    from safetensors.torch import load

    heads: list[dict[str, Any]] = []
    contexts: list[ContextRecord] = []
    segments: list[SegmentRecord] = []
    try:
        for line in path.read_text().splitlines():
            record = json.loads(line)
            kind = record.pop("kind")
            if kind == "problem":
                heads.append(record)
            elif kind == "context":
                contexts.append(ContextRecord(**record))
            else:
                segments.append(_segment(record))
        states = load(path.with_suffix(".safetensors").read_bytes())
        (head,) = heads
        shard = Shard(
            contexts=tuple(contexts),
            segments=tuple(segments),
            target_states=states["target"],
            draft_states=states["draft"],
            **head,
        )
    except (OSError, SafetensorError, TypeError, ValueError, KeyError) as error:
        raise ProbeError(f"{path} is broken ({error}); delete it and collect again to replace it") from error
    return shard


def _segment(record: dict[str, Any]) -> SegmentRecord:
    listed = ("token_ids", "target_logprobs", "draft_logprobs", "target_ranks", "target_entropies")
    return SegmentRecord(**{**record, **{name: tuple(record[name]) for name in listed}})
