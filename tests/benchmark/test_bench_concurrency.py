"""Several requests at once: blocks, their seconds, and what is made of them."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from semanticspec.benchmark.grading import DemoGrader
from semanticspec.benchmark.runner import Setting, run, schedule
from semanticspec.benchmark.tasks import BenchProblem
from semanticspec.commands.main import app
from semanticspec.decoding.pair import Pair
from semanticspec.errors import BenchmarkError
from semanticspec.records import Result
from tests.support.benchmarks import Fake


async def test_requests_at_once_come_in_blocks_and_no_more_than_so_many(pair: Pair) -> None:
    problems = [BenchProblem(str(i), f"problem {i}", "1") for i in range(11)]
    methods = [Fake(name, {}) for name in ("one", "two")]
    blocks = list(schedule(problems, methods, 1, concurrency=2))
    assert [(block.number, block.method.name, len(block.cells)) for block in blocks] == [
        (0, "one", 8),
        (0, "two", 8),
        (1, "two", 3),
        (1, "one", 3),
    ]
    running, most = 0, 0

    class Waits(Fake):
        async def solve(self, prompt: str, seed: int) -> Result:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.05)
            running -= 1
            return await super().solve(prompt, seed)

    waits = Waits("target", {problem.prompt: "\\boxed{1}" for problem in problems})
    setting = Setting("demo", pair, DemoGrader())
    rows = await asyncio.to_thread(lambda: list(run(setting, problems, [waits], concurrency=2)))
    assert most == 2
    assert [row.problem_id for row in rows] == [problem.problem_id for problem in problems]
    assert all(row.right and row.wall_s >= 0.05 for row in rows)
    assert {row.block for row in rows} == {0, 1}
    first = [row.share_s for row in rows if row.block == 0]
    assert len(set(first)) == 1
    assert 0.2 <= sum(first) < 0.4  # eight of 0.05 s, two at a time


def test_each_concurrency_has_its_folder_and_one_picture_compares_them(tmp_path: Path) -> None:
    def bench(*more: str) -> str:
        methods = ["--methods", "target,always", "--max-new-tokens", "12", "--quiet"]
        done = CliRunner().invoke(app, ["bench", "--task", "demo", *methods, "--out", str(tmp_path), *more])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.output

    printed = bench("-n", "6", "--concurrency", "1,2")
    assert "2 requests at once" in printed
    assert (tmp_path / "throughput.png").stat().st_size > 1000
    rows = (tmp_path / "concurrency-2" / "rows.jsonl").read_text().splitlines()
    assert len(rows) == 12
    summary = json.loads((tmp_path / "concurrency-2" / "summary.json").read_text())
    assert summary["concurrency"] == 2
    always = summary["methods"]["always"]
    assert always["throughput_ratio"] > 1
    assert always["latency_s"]["p50"] <= always["latency_s"]["p99"]
    one = json.loads((tmp_path / "concurrency-1" / "summary.json").read_text())["methods"]["always"]
    assert "throughput_ratio" not in one
    table = [line.split(" | ") for line in (tmp_path / "throughput.md").read_text().splitlines()]
    assert [line[:2] for line in table[2:]] == [
        [f"| {at_once}", f"`{method}`"] for at_once in (1, 2) for method in ("target", "always")
    ]
    assert table[2][4] == "1"
    assert table[3][4].startswith(f"{one['speedup']:.2f} [")
    assert table[5][4] == f"{always['throughput_ratio']:.2f}"  # of one block: no interval
    assert one["requests_per_s"] == pytest.approx(one["requests"] / one["wall_s"], rel=0.05)
    (tmp_path / "throughput.png").unlink()
    (tmp_path / "throughput.md").unlink()
    done = CliRunner().invoke(app, ["bench", "report", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "throughput.png").exists()
    assert (tmp_path / "throughput.md").exists()
    with pytest.raises(BenchmarkError, match="concurrency is 2 there and 3 here"):
        CliRunner().invoke(
            app,
            [
                "bench",
                "--task",
                "demo",
                "-n",
                "6",
                "--concurrency",
                "3",
                "--out",
                str(tmp_path / "concurrency-2"),
            ],
            catch_exceptions=False,
        )
