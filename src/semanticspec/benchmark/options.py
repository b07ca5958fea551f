"""What a benchmark is asked to do. Light: the command line makes it before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from semanticspec.config import DecodingConfig


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What a user asked for.

    Attributes:
        methods: names, those of a sweep included.
        num_problems: of each task, the first so many; None = all (demo: 100).
    """

    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    out: Path
    models: dict[str, str | None]
    pair_name: str
    config: DecodingConfig
    num_problems: int | None = None
    samples: int = 1
    data: str | None = None
    pilot_data: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    quiet: bool = False
