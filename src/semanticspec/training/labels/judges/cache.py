"""A cache of a model's verdicts on disk: no question is asked twice, even after the process was killed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from semanticspec.errors import ProbeError
from semanticspec.output.journal import Journal


class VerdictCache:
    """Maps questions to verdicts. A question is a tuple of texts, including the identity of the judge."""

    def __init__(self, path: Path | None = None) -> None:
        """Reads existing verdicts.

        Args:
            path: a JSONL file, created by the first `add`; None keeps verdicts in memory.

        Raises:
            ProbeError: the file is broken.
        """
        self._journal = Journal(path) if path else None
        records = self._journal.read() if self._journal else []
        try:
            self._verdicts = {str(record["key"]): bool(record["verdict"]) for record in records}
        except KeyError as error:
            raise ProbeError(
                f"{path} is not a cache of verdicts (a line has no {error}); delete it and label again"
            ) from error

    def __len__(self) -> int:
        return len(self._verdicts)

    def get(self, *question: str) -> bool | None:
        """Returns the verdict on a question; None if there is none yet."""
        return self._verdicts.get(_key(question))

    def add(self, verdicts: Mapping[tuple[str, ...], bool]) -> None:
        """Stores verdicts by question."""
        new = {_key(question): verdict for question, verdict in verdicts.items()}
        if self._journal and new:
            self._journal.append({"key": key, "verdict": verdict} for key, verdict in new.items())
        self._verdicts.update(new)


def _key(question: tuple[str, ...]) -> str:
    return hashlib.blake2b(json.dumps(question).encode(), digest_size=16).hexdigest()
