"""The options of a benchmark. Light to import: the command line creates them before models are loaded."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from semanticspec.config import DecodingConfig
from semanticspec.engines.registry import DEFAULT_ENGINE


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What to run.

    Attributes:
        methods: names, including those of a sweep.
        models: names of `target`, `draft`, `target_probe` and `draft_probe`; None for the bundled ones.
        engines, devices: of `target` and `draft`.
        num_problems: the first so many of each task; None for all (or the default of a task that generates them).
        skip: leaves out the first so many of these.
        concurrency: numbers of concurrent requests; each is measured in a folder of its own.
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
