"""`semanticspec bench replay`: its options. What a replay does: tests/benchmark."""

from __future__ import annotations

from pathlib import Path

import pytest

from semanticspec.benchmark.replay.options import (
    DEFAULT_KEPT_SHARES,
    DEFAULT_OPTIMIZATIONS,
    ReplayOptions,
)


@pytest.fixture
def replayed(monkeypatch) -> list[ReplayOptions]:
    """The options of replays that were started; nothing is built or played."""
    started: list[ReplayOptions] = []
    monkeypatch.setattr("semanticspec.benchmark.replay.session.run_replay", started.append)
    return started


def test_the_defaults_of_a_synthetic_trace(semanticspec, replayed):
    assert semanticspec("bench", "replay", "--synthetic", "--out", "out").returncode == 0
    assert replayed[0].synthetic == {}
    assert replayed[0].optimizations == DEFAULT_OPTIMIZATIONS
    assert replayed[0].kept_shares == DEFAULT_KEPT_SHARES


def test_options_of_a_synthetic_trace(semanticspec, replayed):
    trace = ["--tokens", "300", "--segment-tokens", "20", "--draft-share", "0.5", "--kept-share", "0, 0.5"]
    shapes = ["--target", "small", "--draft", "tiny", "--device", "cpu"]
    assert semanticspec("bench", "replay", "--synthetic", "--out", "out", *trace, *shapes).returncode == 0
    options = replayed[0]
    assert options.synthetic == {"num_tokens": 300, "segment_tokens": 20, "draft_share": 0.5}
    assert options.kept_shares == (0.0, 0.5)
    assert (options.out, options.target, options.draft, options.device) == (
        Path("out"),
        "small",
        "tiny",
        "cpu",
    )


def test_levers_is_the_old_name_of_optimizations(semanticspec, replayed):
    done = semanticspec(
        "bench", "replay", "--synthetic", "--out", "out", "--levers", "overlap, partial-acceptance"
    )
    assert done.stderr.startswith("warning: --levers is now called --optimizations")
    assert replayed[0].optimizations == ("overlap", "partial-acceptance")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--synthetic"], "--out is missing"),
        (["--out", "out"], "either a benchmark's folder or --synthetic"),
        (["folder", "--synthetic", "--out", "out"], "either a benchmark's folder or --synthetic"),
        (["folder", "--out", "out", "--kept-share", "0.5"], "--kept-share is for --synthetic"),
        (["--synthetic", "--out", "out", "--kept-share", "half"], "--kept-share is 'half'"),
    ],
)
def test_options_that_do_not_fit_are_refused(semanticspec, replayed, arguments, message):
    done = semanticspec("bench", "replay", *arguments)
    assert (done.returncode, replayed) == (2, [])
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
