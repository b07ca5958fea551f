"""CPU threads per operation. Torch keeps this number per thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SMALL_MODEL_PARAMETERS = 10_000_000
"""Smaller models run fastest on one CPU thread: see docs/experiments.md."""


def num_threads_for(num_parameters: int, requested: int | None, default: int) -> int:
    """Returns the CPU threads per operation: as requested, else 1 for small models and `default` for others."""
    return requested or (1 if num_parameters < SMALL_MODEL_PARAMETERS else default)


@contextmanager
def cpu_threads_for(num_parameters: int) -> Iterator[None]:
    """Runs a network of this size on the calling thread with as many CPU threads as suit it."""
    default = torch.get_num_threads()
    torch.set_num_threads(num_threads_for(num_parameters, None, default))
    try:
        yield
    finally:
        torch.set_num_threads(default)
