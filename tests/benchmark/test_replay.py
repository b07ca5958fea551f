"""Replays: traces, plans, plays on tiny models with random weights, the folder and the command."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
from typer.testing import CliRunner

from semanticspec import DecodingConfig, RuleConfig, generate
from semanticspec.benchmark.replay import NOTE, session
from semanticspec.benchmark.replay.costs import TokenCosts, measured_costs, predicted_s
from semanticspec.benchmark.replay.plan import Counts, loop_plan, target_plan
from semanticspec.benchmark.replay.play import PHASES, Play, play
from semanticspec.benchmark.replay.shapes import SHAPES, Shape, build_model, count_parameters, find_shape
from semanticspec.benchmark.replay.trace import (
    Step,
    Synthetic,
    Trace,
    synthetic,
    token_acceptance,
    trace_of,
)
from semanticspec.benchmark.rows import Row, measurements
from semanticspec.commands.main import app
from semanticspec.config import with_optimizations
from semanticspec.engines.transformers.engine import TransformersEngine
from semanticspec.errors import BenchmarkError, ConfigError
from semanticspec.records import Sampling, Stop
from tests.support.benchmarks import make_folder
from tests.support.scripted_pairs import RAW, make_pair

ALL_OPTIMIZATIONS = ("partial-acceptance", "token-speculation", "overlap")
METHOD = "random+partial-acceptance+token-speculation"


def recorded_row(seed: int, *optimizations: str, bonus: bool = False) -> Row:
    """A request of the scripted pair, about half of its segments rejected, as a line of a benchmark."""
    config = DecodingConfig(rule=RuleConfig("random"), sampling=RAW, max_new_tokens=60, seed=seed)
    config = replace(with_optimizations(config, optimizations), bonus_token=bonus, judge_think_end=not bonus)
    result = generate(make_pair(), "a", config)
    row = Row("t", f"p{seed}", METHOD, 0, seed, "", "", "", True, wall_s=1.0, **measurements(result))
    return Row.from_json(json.loads(json.dumps(row.to_json())))


@pytest.fixture(scope="module")
def engines() -> Iterator[tuple[TransformersEngine, TransformersEngine]]:
    """A tiny target and a tiny draft, whose vocabularies differ by padding as those of published pairs do."""
    tiny = find_shape("tiny")
    wider = Shape("wider", "", {**tiny.values, "vocab_size": 600})
    models = [build_model(shape, device="cpu", dtype="float32", seed=0) for shape in (wider, tiny)]
    target, draft = (TransformersEngine.of(model, "tiny") for model in models)
    yield target, draft
    for engine in (target, draft):
        asyncio.run(engine.aclose())


# --- traces ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "optimizations", [(), ("partial-acceptance",), ("token-speculation",), ALL_OPTIMIZATIONS]
)
@pytest.mark.parametrize("bonus", [False, True])
def test_a_recorded_trace_has_the_counts_of_its_row(optimizations, bonus):
    for seed in range(8):
        row = recorded_row(seed, *optimizations, bonus=bonus)
        trace = trace_of(row, bonus_token=bonus)
        assert row.segments_rejected
        assert trace.num_tokens == row.num_tokens
        same = loop_plan(
            trace, optimizations, None, 0
        ).counts()  # no acceptance is needed: all of it is recorded
        assert (same.num_tokens, same.draft_tokens) == (row.num_tokens, row.draft_tokens)
        assert same.drafted_tokens == row.drafted_tokens
        assert same.verify_passes == row.segments_accepted + row.segments_rejected
        proposals = [pair for segment in row.segments for pair in segment.proposals]
        assert same.proposed_tokens == sum(proposed for proposed, _ in proposals)
        plain = loop_plan(trace, (), None, 0).counts()
        assert (plain.num_tokens, plain.drafted_tokens) == (row.num_tokens, row.drafted_tokens)


def test_proposals_are_recorded_where_the_target_writes():
    rows = [recorded_row(seed, "token-speculation") for seed in range(8)]
    for segment in (segment for row in rows for segment in row.segments if segment.author == "target"):
        written = sum(kept + 1 for _, kept in segment.proposals)
        assert written - segment.num_tokens in (
            0,
            1,
        )  # a segment that ends with a kept token gets no further one
    acceptance = token_acceptance([trace_of(row, bonus_token=False) for row in rows])
    assert acceptance is not None
    assert 0 < acceptance < 1
    assert token_acceptance([trace_of(recorded_row(0), bonus_token=False)]) is None


def test_rows_of_before_proposals_were_recorded_are_read():
    row = recorded_row(0, "partial-acceptance")
    record = row.to_json()
    for segment in record["segments"]:
        del segment["proposals"]
    assert Row.from_json(record) == row


@pytest.mark.parametrize("share", [0.0, 0.5, 0.8, 1.0])
def test_a_made_up_trace_is_as_wanted(share):
    wanted = Synthetic(num_tokens=5000, draft_share=share, segment_tokens=35)
    trace = synthetic(wanted, "s", 0)
    accepted = [step for step in trace.steps if step.accepted]
    lengths = [step.drafted for step in trace.steps]
    assert trace.num_tokens == 5000
    assert sum(step.drafted for step in accepted) / 5000 == pytest.approx(share, abs=0.006)
    assert sum(lengths) / len(lengths) == pytest.approx(35, rel=0.1)
    assert synthetic(wanted, "s", 0) == trace
    assert synthetic(wanted, "s", 1) != trace or share in (0.0, 1.0)
    kept = synthetic(replace(wanted, kept_share=0.5), "s", 0)
    assert [(step.drafted, step.accepted) for step in kept.steps] == [
        (step.drafted, step.accepted) for step in trace.steps
    ]
    for step in kept.steps:
        assert step.kept == (step.drafted if step.accepted else step.drafted // 2)


def test_drawn_proposals_have_the_wanted_acceptance():
    trace = Trace("t", 5, (Step(written=20_000),))
    (turn,) = loop_plan(trace, ("token-speculation",), 0.7, 0).turns
    found = token_acceptance([Trace("t", 5, (Step(proposals=turn.proposals),))])
    assert found == pytest.approx(0.7, abs=0.02)
    assert loop_plan(trace, ("token-speculation",), 0.7, 0).counts().num_tokens == 20_000


# --- plays -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "optimizations",
    [None, (), *((name,) for name in ALL_OPTIMIZATIONS), ALL_OPTIMIZATIONS],
    ids=str,
)
def test_what_is_played_is_what_the_trace_says(optimizations, engines):
    traces = [
        synthetic(Synthetic(num_tokens=120, prompt_tokens=9, segment_tokens=12, kept_share=0.3), "s", 0),
        trace_of(recorded_row(1, *ALL_OPTIMIZATIONS), bonus_token=False),
        trace_of(recorded_row(2, bonus=True), bonus_token=True),
    ]
    for trace in traces:
        plan = target_plan(trace) if optimizations is None else loop_plan(trace, optimizations, 0.6, 0)
        done = asyncio.run(play(plan, *engines))
        assert done.counts == plan.counts()
        assert done.counts.num_tokens == trace.num_tokens
        assert 0 <= done.wall_s - sum(getattr(done, phase) for phase in PHASES) < 0.5
        assert [tokens for tokens, _ in done.verified] == [turn.drafted for turn in plan.turns if turn.judged]
        assert Play.from_json(json.loads(json.dumps(done.to_json()))) == done


@pytest.mark.parametrize("optimizations", [(), ALL_OPTIMIZATIONS], ids=str)
def test_with_everything_accepted_nothing_is_written(optimizations, engines):
    trace = synthetic(Synthetic(num_tokens=60, segment_tokens=10, draft_share=1.0), "s", 0)
    done = asyncio.run(play(loop_plan(trace, optimizations, None, 0), *engines))
    assert done.rewrite_s == 0
    assert done.counts == Counts(60, 60, 60, 0, verify_passes=len(trace.steps))


def test_the_model_of_cost_gives_back_what_it_was_measured_on():
    costs = TokenCosts(
        drafted_token_s=0.002,
        verified_token_s=0.001,
        verified_pass_s=0.02,
        target_token_s=0.025,
        target_prompt_s=0.1,
        prompt_s=0.15,
    )
    trace = synthetic(Synthetic(num_tokens=500, kept_share=0.25), "s", 0)
    alone, plain = target_plan(trace), loop_plan(trace, (), None, 0)
    assert predicted_s(alone, costs) == pytest.approx(0.1 + 500 * 0.025)
    drafted, written = plain.counts().drafted_tokens, plain.counts().streamed_tokens
    verify_s = sum(costs.verify_s(turn.drafted) for turn in plain.turns)
    assert predicted_s(plain, costs) == pytest.approx(0.15 + drafted * 0.002 + verify_s + written * 0.025)
    verified = tuple((turn.drafted, costs.verify_s(turn.drafted)) for turn in plain.turns)
    target_play = Play(12.6, 0.1, 0.0, 0.0, 500 * 0.025, alone.counts(), ())
    plain_play = Play(9.0, 0.15, drafted * 0.002, verify_s, written * 0.025, plain.counts(), verified)
    found = measured_costs([target_play], [plain_play])
    assert found.to_json() == pytest.approx(costs.to_json())
    faster = loop_plan(trace, ("partial-acceptance", "token-speculation"), 0.9, 0)
    assert predicted_s(faster, costs) < predicted_s(plain, costs)
    overlapped = replace(plain, config=replace(plain.config, overlap=True))
    saved = predicted_s(plain, costs) - predicted_s(overlapped, costs)
    assert 0 < saved <= min(verify_s, drafted * 0.002)
    assert costs.limit_speedup(35) == pytest.approx(0.025 / (0.002 + 0.001 + 0.02 / 35))


# --- shapes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("qwen2-32b", 32_763_876_352),
        ("qwen2-7b", 7_615_616_512),
        ("qwen2-1.5b", 1_543_714_304),
        ("qwen2-0.5b", 494_032_768),
    ],
)
def test_shapes_have_as_many_weights_as_published(name, published):
    """The counts of the hub's pages of the Qwen2.5 checkpoints; no weight is made for this."""
    assert count_parameters(find_shape(name)) == published


def test_a_shape_can_be_a_file(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(dict(SHAPES["tiny"][1])))
    for name in (tmp_path, tmp_path / "config.json"):
        assert count_parameters(find_shape(str(name))) == count_parameters(find_shape("tiny"))
    model = build_model(find_shape(str(tmp_path)), device="cpu", dtype="bfloat16", seed=0)
    again = build_model(find_shape("tiny"), device="cpu", dtype="bfloat16", seed=0)
    weights, others = (m.model.model.layers[0].mlp.up_proj.weight for m in (model, again))
    assert str(weights.dtype) == "torch.bfloat16"
    assert weights.equal(others)
    assert float(weights.float().std()) == pytest.approx(SHAPES["tiny"][1]["initializer_range"], rel=0.05)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("{}", "is not a model config"),
        ('{"model_type": "abacus"}', "transformers does not know the shape"),
        ('{"model_type": "t5"}', "is not a causal language model"),
    ],
)
def test_files_that_are_no_shape_are_told(content, message, tmp_path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        count_parameters(find_shape(str(tmp_path)))


async def test_random_weights_choose_among_few_tokens_as_trained_ones_do(engines):
    target, _ = engines
    (generation,) = await target.generate(
        [1, 2, 3], max_tokens=50, stop=Stop(), sampling=Sampling(), distributions=True
    )
    nucleus = median(len(row.token_ids) for row in generation.distributions)
    assert 1 <= nucleus <= 20


# --- the command -------------------------------------------------------------------------------------------------


def replay(out: Path, *arguments: str, target: str = "tiny") -> str:
    """Runs the command on tiny models and returns what it prints; its errors come through."""
    usual = [
        "--target",
        target,
        "--draft",
        "tiny",
        "--dtype",
        "float32",
        "--device",
        "cpu",
        "--out",
        str(out),
    ]
    done = CliRunner().invoke(app, ["bench", "replay", *usual, *arguments], catch_exceptions=True)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code in (0, 130), done.output
    return " ".join(done.output.split())


def write_folder(path: Path, *rows: Row) -> Path:
    return make_folder(path, rows).path


SHORT = ("--synthetic", "--tokens", "40", "--prompt-tokens", "5", "--segment-tokens", "8")


def test_a_made_up_replay_from_start_to_table(tmp_path):
    out = tmp_path / "out"
    printed = replay(
        out,
        *SHORT,
        "--trials",
        "2",
        "--kept-share",
        "0,0.5",
        "--optimizations",
        "token-speculation,default",
    )
    summary = json.loads((out / "summary.json").read_text())
    assert summary["note"] == NOTE
    assert list(summary["cases"]) == [
        "target",
        "plain",
        "plain+token-speculation",
        "plain+default, 0% kept",
        "plain+default, 50% kept",
    ]
    assert {figures["counts"]["num_tokens"] for figures in summary["cases"].values()} == {40}
    for figures in summary["cases"].values():
        phases = sum(figures[name] for name in (*PHASES, "other_s"))
        assert phases == pytest.approx(figures["wall_s"])
        assert figures["speedup_range"][0] <= figures["speedup"] <= figures["speedup_range"][1]
    assert summary["cases"]["target"]["speedup"] == 1
    assert printed.count(NOTE) == 2  # before it starts, and below the table
    assert "Cost model" in printed
    assert len((out / "plays.jsonl").read_text().splitlines()) == 2 * 5


def test_a_recorded_replay_has_the_counts_of_its_rows(tmp_path):
    rows = [recorded_row(seed, "partial-acceptance", "token-speculation") for seed in range(3)]
    folder = write_folder(tmp_path / "bench", *rows, replace(rows[0], method="target"))
    replay(
        tmp_path / "out",
        str(folder),
        "--method",
        METHOD,
        "--trials",
        "1",
        "--optimizations",
        "default",
    )
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    counts = summary["cases"]["plain+default"]["counts"]
    assert counts["drafted_tokens"] == sum(row.drafted_tokens for row in rows)
    assert counts["draft_tokens"] == sum(row.draft_tokens for row in rows)
    assert counts["num_tokens"] == sum(row.num_tokens for row in rows)
    assert summary["source"]["token_acceptance_from"] == "recorded"


def test_a_stopped_replay_goes_on_where_it_was(tmp_path, monkeypatch):
    out, real, left = tmp_path / "out", session.play, [6]

    async def stopping(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        return await real(*arguments)

    monkeypatch.setattr(session, "play", stopping)
    arguments = (*SHORT, "--optimizations", "token-speculation", "--trials", "2")
    replay(out, *arguments)
    before = (out / "plays.jsonl").read_text()
    assert len(before.splitlines()) == 3  # after one warm-up for each of the three cases
    monkeypatch.setattr(session, "play", real)
    replay(out, *arguments)
    after = (out / "plays.jsonl").read_text()
    assert after.startswith(before)
    assert len(after.splitlines()) == 6
    replay(out, *arguments, "-n", "2")
    assert len((out / "plays.jsonl").read_text().splitlines()) == 12
    for other in (("--seed", "1"), ("--token-acceptance", "0.3")):
        with pytest.raises(BenchmarkError, match="another configuration"):
            replay(out, *arguments, *other)


def test_bad_input_is_told_before_a_model_is_built(tmp_path, monkeypatch):
    def built(*_, **__):
        raise AssertionError("a model was built")

    monkeypatch.setattr(session, "build_model", built)
    row = recorded_row(0, "partial-acceptance")
    bench = write_folder(tmp_path / "bench", row, replace(row, method="target"))
    empty = write_folder(tmp_path / "empty")
    broken = write_folder(tmp_path / "broken", replace(row, num_tokens=row.num_tokens + 1))
    out = tmp_path / "out"
    cases: list[tuple[tuple[str, ...], type[Exception], str]] = [
        ((), ConfigError, "either a benchmark's folder or --synthetic"),
        ((str(bench), "--synthetic"), ConfigError, "either a benchmark's folder or --synthetic"),
        ((str(tmp_path), "--method", METHOD), BenchmarkError, "is not a results folder"),
        ((str(empty), "--method", METHOD), ConfigError, "no rows to replay"),
        (
            (str(bench), "--method", "semantic"),
            ConfigError,
            "no rows of 'semantic'; methods to replay: random",
        ),
        ((str(bench), "--method", "target"), ConfigError, "has no verdicts on drafted segments"),
        ((str(bench),), ConfigError, "--method is missing"),
        ((str(bench), "--method", METHOD), ConfigError, "give --token-acceptance"),
        (
            (str(bench), "--method", METHOD, "--tokens", "9"),
            ConfigError,
            "num_tokens: these are settings of a synthetic",
        ),
        ((str(broken), "--method", METHOD), BenchmarkError, "tokens and its output"),
        ((*SHORT, "--method", METHOD), ConfigError, "--method needs a benchmark folder"),
        ((*SHORT, "--optimizations", "magic"), ConfigError, "optimization is 'magic'"),
        (
            (*SHORT, "--optimizations", "token-speculation+adaptive"),
            ConfigError,
            "expected any of partial-acceptance, token-speculation, overlap",
        ),
        ((*SHORT, "--optimizations", "token-speculation,token-speculation"), ConfigError, "given twice"),
        ((*SHORT, "--kept-share", "1"), ConfigError, "kept share is 1.0"),
        ((*SHORT, "--kept-share", "much"), ConfigError, "expected comma-separated numbers"),
        ((*SHORT, "--draft-share", "2"), ConfigError, "share is 2.0"),
        ((*SHORT, "--token-acceptance", "2"), ConfigError, "expected a number from 0 to 1"),
        (("--synthetic", "--tokens", "40000"), ConfigError, "the context of the target, tiny, holds 32768"),
        ((*SHORT, "--device", "abacus"), ConfigError, "device is 'abacus'"),
        ((*SHORT, "--dtype", "int3"), ConfigError, "dtype is 'int3'"),
    ]
    for arguments, error, message in cases:
        with pytest.raises(error, match=message):
            replay(out, *arguments)
    with pytest.raises(ConfigError, match="no shape 'huge'; choose from qwen2-32b"):
        replay(out, *SHORT, target="huge")
    with pytest.raises(BenchmarkError, match="choose another --out"):
        replay(bench, *SHORT)
    assert not out.exists()
