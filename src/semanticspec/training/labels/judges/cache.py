"""Verdicts a model has given, kept on disk: no question is asked twice, not even after a kill."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from semanticspec.errors import ProbeError
from semanticspec.output.journal import Journal


class VerdictCache:
    """Yes or no by question. The question's own text and whoever is asked are both part of its key."""

    def __init__(self, path: Path | None = None) -> None:
        """Reads what is there.

        Args:
            path: of a JSONL file that need not exist; None keeps verdicts in memory only.

        Raises:
            ProbeError: the file is broken.
        """
        self._journal = Journal(path) if path else None
        records = self._journal.read() if self._journal else []
        try:
            self._verdicts = {str(record["key"]): bool(record["verdict"]) for record in records}
        except KeyError as error:
            raise ProbeError(f"{path} holds no verdicts (no {error}); delete it and label again") from error

    def __len__(self) -> int:
        return len(self._verdicts)

    def get(self, *question: str) -> bool | None:
        """The verdict on a question, None if it was never asked."""
        return self._verdicts.get(_key(question))

    def add(self, verdicts: Mapping[tuple[str, ...], bool]) -> None:
        """Stores verdicts by their questions."""
        fresh = {_key(question): verdict for question, verdict in verdicts.items()}
        if self._journal and fresh:
            self._journal.append({"key": key, "verdict": verdict} for key, verdict in fresh.items())
        self._verdicts.update(fresh)


def _key(question: tuple[str, ...]) -> str:
    return hashlib.blake2b(json.dumps(question).encode(), digest_size=16).hexdigest()
