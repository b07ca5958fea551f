"""Recorded segments and what other engines make of them, on the bundled pair."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from experiments.engine_agreement.__main__ import app
from experiments.engine_agreement.agreement import Judged, compare
from experiments.engine_agreement.recordings import Recordings, table
from semanticspec.config import DecodingConfig
from semanticspec.decoding.pair import Pair
from semanticspec.demo.grammar import problems
from semanticspec.errors import ProbeError
from semanticspec.loading import load_pair
from semanticspec.problems.sources import ProblemText
from semanticspec.records import Reading

PROBLEMS = [ProblemText(problem.text, problem.text) for problem in problems("test", 6)]
CONFIG = DecodingConfig()


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    loaded = load_pair(device="cpu")
    yield loaded
    asyncio.run(loaded.aclose())


def _recorded(path: Path, pair: Pair, num_segments: int) -> Recordings:
    recordings = Recordings(path)
    asyncio.run(recordings.extend(pair, PROBLEMS, CONFIG, num_segments))
    return recordings


class _Shifted:
    """A probe whose estimates are another one's, moved by 0.5 where there is room."""

    def __init__(self, pair: Pair) -> None:
        self._probe = pair.target_probe

    def estimate(self, reading: Reading) -> float:
        assert self._probe is not None
        found = self._probe.estimate(reading)
        return found - 0.5 if found > 0.5 else found + 0.5


def test_the_same_engine_agrees_with_itself_and_another_probe_does_not(pair: Pair, tmp_path: Path) -> None:
    recordings = _recorded(tmp_path / "segments", pair, 12)
    same = asyncio.run(recordings.compare(pair))
    assert same.num_segments == len(recordings.segments) >= 12
    assert same.share == 1
    assert max(*same.target, *same.draft) < 1e-5
    other = asyncio.run(recordings.compare(replace(pair, target_probe=_Shifted(pair)), 12))
    assert other.num_segments == 12
    assert other.share < 1
    assert other.target == pytest.approx((0.5, 0.5, 0.5), abs=1e-5)
    assert max(other.draft) < 1e-5


def test_recording_goes_on_where_it_was_stopped(pair: Pair, tmp_path: Path) -> None:
    whole = _recorded(tmp_path / "whole", pair, 12)
    path = tmp_path / "stopped"
    _recorded(path, pair, 2)
    with path.open("a") as file:
        file.write('{"problem": "cut o')
    assert _recorded(path, pair, 12).segments == whole.segments


def test_a_recording_of_other_settings_is_not_continued(pair: Pair, tmp_path: Path) -> None:
    recordings = _recorded(tmp_path / "segments", pair, 2)
    before = recordings.path.read_bytes()
    with pytest.raises(ProbeError, match="recorded with another seed"):
        asyncio.run(Recordings(recordings.path).extend(pair, PROBLEMS, replace(CONFIG, seed=1), 2))
    assert recordings.path.read_bytes() == before


def test_too_few_problems_say_so_and_keep_what_there_is(pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="6 problems gave"):
        _recorded(tmp_path / "segments", pair, 1000)
    assert len(Recordings(tmp_path / "segments").segments) > 6


def test_other_files_and_other_tokenizers_are_refused(pair: Pair, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text('{"prompt": "a"}\n')
    with pytest.raises(ProbeError, match="holds no recorded segments"):
        Recordings(other)
    recordings = _recorded(tmp_path / "segments", pair, 2)
    recordings.header["vocabularies"] = ["x", "y"]
    with pytest.raises(ProbeError, match="other tokenizers"):
        asyncio.run(recordings.compare(pair))


def test_figures_of_an_agreement() -> None:
    first = [Judged(0.5, 0.5, True)] * 20
    second = [Judged(0.5, 0.25, True)] * 19 + [Judged(0.0, 0.5, False)]
    agreement = compare(first, second)
    assert (agreement.same, agreement.share) == (19, 0.95)
    assert agreement.target == pytest.approx((0, 0.025, 0.5))  # 19 times 0 and once 0.5
    assert agreement.draft == pytest.approx((0.25, 0.25, 0.25))
    assert "| vllm | 20 | 95.0% | 0.0e+00 | 2.5e-02 | 5.0e-01 | 2.5e-01 " in table("vllm", agreement)


def test_commands(tmp_path: Path) -> None:
    path = str(tmp_path / "segments.jsonl")
    runner = CliRunner()
    recorded = runner.invoke(app, ["record", "--out", path, "--num-segments", "5"])
    assert recorded.exit_code == 0, recorded.output
    found = runner.invoke(app, ["compare", path, "--num-segments", "5", "--json"])
    assert found.exit_code == 0, found.output
    figures = json.loads(found.stdout)
    assert (figures["num_segments"], figures["same_verdict_share"]) == (5, 1.0)
    assert (
        "| transformers, auto | 5 | 100.0% |"
        in runner.invoke(app, ["compare", path, "--num-segments", "5"]).stdout
    )
    missing = runner.invoke(app, ["compare", "nowhere.jsonl"])
    assert isinstance(missing.exception, ProbeError)
