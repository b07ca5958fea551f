"""The options of a benchmark. Light to import: the command line creates them before models are loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from semanticspec.config import DecodingConfig
from semanticspec.records import Author

if TYPE_CHECKING:
    from semanticspec.decoding.pair import Pair


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What to run.

    Attributes:
        methods: names, including those of a sweep.
        load_pair: loads the models; called after all checks.
        pair_name, engines, dtype, devices: describe the pair in `config.json`.
        num_problems: use only the first `num_problems` of each task; None for all, or for the default number of a task
            that generates its problems.
        skip: number of these to leave out, from the start.
        concurrency: numbers of concurrent requests; each is measured in a folder of its own.
    """

    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    out: Path
    load_pair: Callable[[], Pair]
    pair_name: str
    engines: dict[Author, str]
    dtype: str
    devices: dict[Author, str]
    config: DecodingConfig
    num_problems: int | None = None
    skip: int = 0
    samples: int = 1
    concurrency: tuple[int, ...] = (1,)
    data: str | None = None
    pilot_data: str | None = None
    quiet: bool = False
