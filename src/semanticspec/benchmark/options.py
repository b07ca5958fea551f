"""What a benchmark is asked to do. Light: the command line makes it before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from semanticspec.config import DecodingConfig
from semanticspec.engines.registry import DEFAULT_ENGINE


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What a user asked for.

    Attributes:
        methods: names, those of a sweep included.
        engines: of target and draft, see `engines.table`.
        num_problems: of each task, the first so many; None = all (demo: 100).
        skip: of these, leave out the first so many.
        concurrency: how many requests run at once; several numbers, each measured by itself.
    """

    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    out: Path
    models: dict[str, str | None]
    pair_name: str
    config: DecodingConfig
    num_problems: int | None = None
    skip: int = 0
    samples: int = 1
    concurrency: tuple[int, ...] = (1,)
    data: str | None = None
    pilot_data: str | None = None
    engines: dict[str, str] = field(
        default_factory=lambda: dict.fromkeys(("target", "draft"), DEFAULT_ENGINE)
    )
    dtype: str = "auto"
    devices: dict[str, str] = field(default_factory=lambda: dict.fromkeys(("target", "draft"), "auto"))
    quiet: bool = False
