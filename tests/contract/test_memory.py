"""Memory does not grow over hundreds of requests, in this process and in the engines' processes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from semanticspec.records import Sampling, Stop
from tests.support.subjects import VOCABULARY, Subject

SAMPLING = Sampling(0.8, 0.9)
WARM, MORE = 150, 500
ALLOWED = 24 * 2**20
"""Bytes. One leaked row of states and logits per request would be more."""


def resident_bytes() -> int:
    """Returns the memory of this process and its descendants."""
    parents: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                lines = (folder / "status").read_text().splitlines()
            except OSError:  # the process has ended
                continue
            fields = dict(line.split(":", 1) for line in lines if ":" in line)
            parents[int(folder.name)] = int(fields["PPid"])
            sizes[int(folder.name)] = 1024 * int(fields.get("VmRSS", "0").split()[0])
    own = int(Path("/proc/self").resolve().name)
    total = 0
    for process, size in sizes.items():
        above = process
        while above not in (own, 0):
            above = parents.get(above, 0)
        total += size if above == own else 0
    return total


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_memory_does_not_grow(subject: Subject) -> None:
    async def request(number: int) -> None:
        context = [1 + (number * place) % (VOCABULARY - 1) for place in range(1, 24)]
        options = {"sampling": SAMPLING, "seed": number, "request_id": f"request {number}"}
        (written,) = await subject.engine.generate(context, max_tokens=6, stop=Stop(), **options)  # type: ignore[arg-type]
        await subject.engine.score(context, [list(written.token_ids)], **options)  # type: ignore[arg-type]

    for number in range(WARM):
        await request(number)
    before = resident_bytes()
    for number in range(WARM, WARM + MORE):
        await request(number)
    assert resident_bytes() - before < ALLOWED
