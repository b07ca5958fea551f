"""The bundled pair's verdicts through llama.cpp, beside transformers: `python -m semanticspec.demo.engines`.

The same weights in every engine: the GGUF files are made of the bundled folders. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from semanticspec.config import DecodingConfig
from semanticspec.demo.gguf import write_pair
from semanticspec.demo.stories import problems
from semanticspec.errors import SemanticSpecError
from semanticspec.loading import BUNDLED, load_pair
from semanticspec.pair import Pair
from semanticspec.probes.agreement import Agreement, Judged, RecordedSegment, compare, judge, record

DTYPES = ("float32", "float16")
"""Of the keys and values that llama.cpp keeps."""


def measure(num_segments: int, folder: Path, dtypes: Sequence[str] = DTYPES) -> dict[str, Agreement]:
    """Records segments with transformers on unseen problems, and judges them through every engine.

    Args:
        folder: for the GGUF files.

    Returns:
        By dtype, how far llama.cpp agrees with transformers.
    """
    config = DecodingConfig()
    prompts = (problem.text for problem in problems("test", num_segments))
    segments, reference = asyncio.run(_reference(load_pair(device="cpu"), prompts, config, num_segments))
    target, draft = write_pair(folder)
    found = {}
    for dtype in dtypes:
        pair = load_pair(
            str(target),
            str(draft),
            target_probe=BUNDLED,
            draft_probe=BUNDLED,
            target_engine="llama-cpp",
            draft_engine="llama-cpp",
            dtype=dtype,
        )
        found[dtype] = compare(reference, asyncio.run(_judge_and_close(pair, segments, config)))
    return found


async def _reference(
    pair: Pair, prompts: Iterable[str], config: DecodingConfig, num_segments: int
) -> tuple[list[RecordedSegment], list[Judged]]:
    segments = await record(pair, prompts, config, num_segments)
    return segments, await _judge_and_close(pair, segments, config)


async def _judge_and_close(
    pair: Pair, segments: Sequence[RecordedSegment], config: DecodingConfig
) -> list[Judged]:
    try:
        return await judge(pair, segments, config)
    finally:
        await pair.aclose()


def table(found: dict[str, Agreement]) -> str:
    """The figures in Markdown."""
    lines = [
        "| llama.cpp, keys and values in | segments | same verdict | difference in p: median | 95th percentile | max |",
        "|---|---|---|---|---|---|",
    ]
    for dtype, agreement in found.items():
        figures = " | ".join(f"{figure:.1e}" for figure in agreement.differences)
        lines.append(f"| {dtype} | {agreement.num_segments} | {agreement.share:.1%} | {figures} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--segments", type=int, default=200, help="how many recorded segments")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            print(table(measure(arguments.segments, Path(folder))))
    except SemanticSpecError as failure:
        raise SystemExit(f"error: {failure}") from None


if __name__ == "__main__":
    main()
