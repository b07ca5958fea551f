"""Writes the bundled pair as GGUF files, for llama.cpp: `python -m semanticspec.demo.gguf FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

from semanticspec import demo
from semanticspec.errors import SemanticSpecError
from semanticspec.text.gguf_files import write_gguf


def write_pair(folder: Path) -> tuple[Path, Path]:
    """Writes `target.gguf` and `draft.gguf` in float32, tokenizers included; returns their paths.

    Raises:
        EngineError: the package gguf is missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target, draft = folder / "target.gguf", folder / "draft.gguf"
    write_gguf(demo.target_path(), target)
    write_gguf(demo.draft_path(), draft)
    return target, draft


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m semanticspec.demo.gguf FOLDER")
    try:
        paths = write_pair(Path(sys.argv[1]))
    except SemanticSpecError as failure:
        raise SystemExit(f"error: {failure}") from None
    print(*paths, sep="\n")
