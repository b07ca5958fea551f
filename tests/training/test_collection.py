"""Collections: their rows and files, contexts from traces, sources of problems, resuming, the command."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch
from typer.testing import CliRunner

from semanticspec.commands.probe import probe_app
from semanticspec.decoding.generate import decode
from semanticspec.demo.exact_judge import ExactJudge
from semanticspec.errors import ConfigError, ProbeError
from semanticspec.probes.features import (
    FEATURES,
    TokenSignals,
    check_features,
    compute_features,
    features_for,
    named_features,
    signals_of,
)
from semanticspec.problems.sources import ProblemText, read_problems
from semanticspec.records import Reading
from semanticspec.training.data import contexts
from semanticspec.training.data.collect import collect
from semanticspec.training.data.settings import CollectConfig
from semanticspec.training.data.storage import Collection, ContextRecord, SegmentRecord, Shard
from semanticspec.training.labels.label import label
from semanticspec.training.train import TrainConfig, train
from tests.support.collecting import CONFIG, PROBLEMS, make_manifest, make_pair, next_probabilities

# --- rows --------------------------------------------------------------------------------------------------


def run_collect(
    folder: Path, problems: Sequence[ProblemText] = PROBLEMS, config: CollectConfig = CONFIG
) -> list[Shard]:
    return list(asyncio.run(collect(make_pair(), problems, config, folder)))


def test_segments_of_both_authors_hold_the_targets_scores(tmp_path: Path) -> None:
    """Compares with the scripted target's probabilities, token by token."""
    target, draft = next_probabilities(0.7), next_probabilities(0.4)
    pair = make_pair()
    checked = {"target": 0, "draft": 0}
    for shard in run_collect(tmp_path):
        prompt = pair.target.vocabulary.render_prompt(shard.prompt)
        texts = {context.context_id: context.text for context in shard.contexts}
        for row, state, draft_state in zip(
            shard.segments, shard.target_states, shard.draft_states, strict=True
        ):
            ids = [*prompt, *pair.target.vocabulary.encode(texts[row.context_id])]
            places = [ids + list(row.token_ids[:end]) for end in range(len(row.token_ids))]
            told = [target(place) for place in places]
            chosen = [p[i] for p, i in zip(told, row.token_ids, strict=True)]
            expected = [log(p) if p else -1e4 for p in chosen]
            assert row.target_logprobs == pytest.approx(expected, abs=1e-4)
            assert row.target_ranks == tuple(
                1 + sum(q > p for q in every) for p, every in zip(chosen, told, strict=True)
            )
            entropies = [-sum(p * log(p) for p in every if p) for every in told]
            assert row.target_entropies == pytest.approx(entropies, abs=1e-5)
            torch.testing.assert_close(state, torch.tensor(told, dtype=torch.float32).mean(0))
            if row.author == "draft":
                own = [draft(place) for place in places]
                torch.testing.assert_close(draft_state, torch.tensor(own, dtype=torch.float32).mean(0))
                probabilities = [p[i] for p, i in zip(own, row.token_ids, strict=True)]
                assert row.draft_logprobs == pytest.approx([log(p) for p in probabilities], abs=1e-4)
            checked[row.author] += 1
    assert min(checked.values()) > 20


def test_each_distinct_segment_of_a_context_is_scored_once(tmp_path: Path) -> None:
    pair, asked = make_pair(), []
    score = pair.target.engine.score

    async def spy(context_ids: Any, continuations: Any, **options: Any) -> Any:
        asked.append((tuple(context_ids), [tuple(ids) for ids in continuations]))
        return await score(context_ids, continuations, **options)

    pair.target.engine.score = spy  # type: ignore[method-assign]
    shards = list(asyncio.run(collect(pair, PROBLEMS[:3], replace(CONFIG, loop_share=0), tmp_path)))
    assert len(asked) == sum(len(shard.contexts) for shard in shards)  # no loop here: only the rows' own
    assert all(len(set(continuations)) == len(continuations) for _, continuations in asked)
    assert sum(len(continuations) for _, continuations in asked) < sum(len(s.segments) for s in shards)


def test_a_trace_is_written_only_if_contexts_come_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []

    def spy(pair: Any, prompt: Any, config: Any) -> Any:
        written.append("loop" if config.speculate else "target")
        return decode(pair, prompt, config)

    monkeypatch.setattr(contexts, "decode", spy)
    for name, config, expected in (
        ("both", CONFIG, {"loop", "target"}),
        ("one context", replace(CONFIG, max_contexts=1), {"loop"}),
        ("no loop", replace(CONFIG, loop_share=0), {"target"}),
    ):
        written.clear()
        shards = run_collect(tmp_path / name, config=config)
        assert set(written) == expected
        assert {context.origin for shard in shards for context in shard.contexts} == expected
    written.clear()
    problems = [ProblemText(f"number {i}", "ab"[i % 2]) for i in range(40)]
    shards = run_collect(tmp_path / "one trace", problems, replace(CONFIG, one_trace=True, max_contexts=2))
    each = [{context.origin for context in shard.contexts} for shard in shards]
    assert all(len(found) == 1 for found in each)
    assert 10 <= each.count({"loop"}) <= 30
    assert len(written) == len(problems)


# --- given traces ------------------------------------------------------------------------------------------


def test_given_traces_are_split_at_their_boundaries(tmp_path: Path) -> None:
    problem = ProblemText("given", "a", "a\n\nb\n\nab\n\n</think>a")
    (shard,) = run_collect(tmp_path, [problem], replace(CONFIG, loop_share=0))
    assert [(context.origin, context.text) for context in shard.contexts] == [
        ("given", text) for text in ("", "a\n\n", "a\n\nb\n\n", "a\n\nb\n\nab\n\n")
    ]
    (shard,) = run_collect(tmp_path / "short", [problem], replace(CONFIG, loop_share=0, max_trace_tokens=4))
    assert [context.text for context in shard.contexts] == ["", "a\n\n"]
    (shard,) = run_collect(tmp_path / "mixed", [problem], replace(CONFIG, max_contexts=4))
    assert {context.origin for context in shard.contexts} <= {"loop", "given"}
    assert sum(context.origin == "loop" for context in shard.contexts) >= len(shard.contexts) / 2


def test_a_trace_without_a_boundary_is_refused_before_any_work(tmp_path: Path) -> None:
    problems = [PROBLEMS[0], ProblemText("solid", "a", "ababab\n\n")]
    with pytest.raises(ConfigError, match="'solid' has no blank line inside"):
        run_collect(tmp_path / "data", problems)
    assert not (tmp_path / "data").exists()


# --- files -------------------------------------------------------------------------------------------------


def shard_of(problem_id: str = "one", **changes: Any) -> Shard:
    segments = tuple(
        SegmentRecord("0", author, text, ids, 2, "stop", (-0.5, -1.25), own, (1, 2), (0.5, 0.25))  # type: ignore[arg-type]
        for author, text, ids, own in (
            ("target", "é\n\n", (5, 2), ()),
            ("draft", "b", (6, 2), (-2.0, -0.125)),
        )
    )
    shard = Shard(
        problem_id=problem_id,
        prompt='"?" ü\n',
        contexts=(ContextRecord("0", "given", "so far\n\n"),),
        segments=segments,
        target_states=torch.randn(2, 6),
        draft_states=torch.randn(2, 4),
    )
    return replace(shard, **changes)


def opened(folder: Path, **manifest: Any) -> Collection:
    collection = Collection(folder)
    collection.open(make_manifest(**manifest))
    return collection


def test_a_shard_survives_a_round_trip(tmp_path: Path) -> None:
    collection, shard = opened(tmp_path), shard_of()
    collection.write(shard)
    (found,) = collection
    assert replace(found, target_states=shard.target_states, draft_states=shard.draft_states) == shard
    assert torch.equal(found.target_states, shard.target_states)
    assert torch.equal(found.draft_states, shard.draft_states)


def test_shards_are_plain_parquet_files(tmp_path: Path) -> None:
    opened(tmp_path).write(shard_of())
    (path,) = (tmp_path / "problems").glob("*.parquet")
    table = pyarrow.parquet.read_table(path)
    assert table.schema.metadata[b"problem_id"] == b"one"
    assert table.schema.metadata[b"prompt"].decode() == '"?" ü\n'
    assert table.to_pylist()[0] == {
        "context_id": "0",
        "origin": "given",
        "context": "so far\n\n",
        "author": "target",
        "text": "é\n\n",
        "count": 2,
        "stop_reason": "stop",
        "token_ids": [5, 2],
        "target_logprobs": [-0.5, -1.25],
        "draft_logprobs": [],
        "target_ranks": [1, 2],
        "target_entropies": [0.5, 0.25],
    }


def test_errors_name_the_file_that_is_broken_or_foreign(tmp_path: Path) -> None:
    collection = opened(tmp_path / "data")
    collection.write(shard_of())
    (path,) = (collection.folder / "problems").glob("*.parquet")
    rows, states = path.read_bytes(), path.with_suffix(".safetensors").read_bytes()

    def message() -> str:
        with pytest.raises(ProbeError) as caught:
            list(Collection(collection.folder))
        assert path.name in str(caught.value)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    path.write_bytes(rows[: len(rows) // 2])
    assert "is broken" in message()
    pyarrow.parquet.write_table(pyarrow.table({"x": [1]}), path)
    assert "another format (None, expected '2')" in message()
    table = pyarrow.parquet.read_table(pyarrow.BufferReader(rows))
    pyarrow.parquet.write_table(
        table.replace_schema_metadata({**table.schema.metadata, b"format": b"3"}), path
    )
    assert "another format ('3', expected '2')" in message()
    pyarrow.parquet.write_table(table.drop_columns("count"), path)
    assert "other columns or types than context_id, " in message()
    other = opened(tmp_path / "other", fingerprint="another model")
    other.write(shard_of())
    path.write_bytes((other.folder / "problems" / path.name).read_bytes())
    assert "belongs to another collection" in message()
    path.write_bytes(rows)
    shard = shard_of("two")
    collection.write(shard)
    path.with_suffix(".safetensors").write_bytes(states[:50])
    assert "is broken" in message()
    collection.write(shard_of(target_states=torch.zeros(3, 6)))
    assert "differ in length" in message()
    path.with_suffix(".safetensors").write_bytes(states)
    path.write_bytes(next(p for p in path.parent.glob("*.parquet") if p != path).read_bytes())
    assert "belongs into another file" in message()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 1}, "format is 1; expected 2; collect into a new folder"),
        ({"layers": 3}, "unknown key layers; expected one of format, target, draft"),
        ({"draft": {}}, "draft.model_id is missing"),
    ],
)
def test_an_unusable_manifest_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    opened(tmp_path)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | changes))
    with pytest.raises(ProbeError, match=rf"manifest\.json: {said}"):
        opened(tmp_path)
    manifest.write_text("{")
    with pytest.raises(ProbeError, match=r"manifest\.json: not valid JSON"):
        opened(tmp_path)
    manifest.unlink()
    with pytest.raises(ProbeError, match="holds no collection; make one with"):
        list(Collection(tmp_path))


def test_a_collection_of_earlier_versions_can_be_read(tmp_path: Path) -> None:
    """Written before manifests had `layer` and `pooling`, and before probes were among them."""
    model = {"model_id": "some/model", "revision": "abc", "hidden_size": 6, "num_layers": 2}
    model |= {"norm_state": "post", "fingerprint": "f00d"}
    manifest = {"format": 2, "target": model, "draft": model, "config": {"seed": 0, "loop_rules": []}}
    (tmp_path / "problems").mkdir()
    (tmp_path / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    collection = Collection(tmp_path)
    assert collection.digest == hashlib.blake2b(json.dumps(manifest).encode(), digest_size=10).hexdigest()
    collection.write(shard_of())
    assert len(list(Collection(tmp_path))) == 1
    assert (collection.manifest.target.layer, collection.pooling("draft")) == (-1, "mean")


def test_without_pyarrow_the_install_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ProbeError, match=r"need pyarrow: pip install .*probes"):
        opened(tmp_path / "data")
    assert not (tmp_path / "data").exists()


# --- problems ----------------------------------------------------------------------------------------------


def test_traces_of_problem_files(tmp_path: Path) -> None:
    path = tmp_path / "problems.jsonl"
    path.write_text('{"id": "x", "problem": "one", "solution": "a\\n\\nb"}\n{"id": "y", "problem": "two"}\n')
    assert read_problems(str(path), 1, "solution") == [("x", "one", "a\n\nb")]
    assert read_problems(str(path)) == [("x", "one", ""), ("y", "two", "")]
    with pytest.raises(ConfigError, match="line 2: the field 'solution'"):
        read_problems(str(path), trace_field="solution")
    path.write_text("{\n")
    with pytest.raises(ConfigError, match="line 1: not valid JSON"):
        read_problems(str(path))
    with pytest.raises(ConfigError, match="problems of 'demo' have no traces"):
        read_problems("demo", trace_field="solution")


# --- features ----------------------------------------------------------------------------------------------


def test_features_of_ranks_and_entropies_by_hand() -> None:
    signals = TokenSignals((-0.5, -3.0, -1.0, -50.0), (1, 3, 2, 40), (0.25, 2.0, 1.0, 0.75))
    names = (
        "agreement",
        "top_2_share",
        "worst_rank",
        "entropy",
        "highest_entropy",
        "excess_sum",
        "excess_minimum",
    )
    assert compute_features(names, signals) == pytest.approx([0.25, 0.5, log(40), -1.0, 2.0, -20.5, -19.25])


def test_features_without_their_signals_are_refused() -> None:
    own_pass = signals_of(Reading((-1.0, -2.0), torch.zeros(3)))
    with pytest.raises(ConfigError, match="agreement"):
        compute_features(("mean", "agreement"), own_pass)
    with pytest.raises(ConfigError, match="entropy, excess_sum need entropies"):
        compute_features(("entropy", "excess_sum"), TokenSignals((-1.0,), (1,)))
    assert len(compute_features(features_for("draft"), own_pass)) == len(FEATURES) - 7
    assert features_for("target") == tuple(FEATURES)
    assert named_features("all", "target") == tuple(FEATURES)
    assert named_features("mean,worst_rank", "target") == ("mean", "worst_rank")
    assert set(FEATURES) - set(named_features("portable", "target")) == {
        "entropy",
        "highest_entropy",
        "excess_sum",
        "excess_minimum",
    }
    assert named_features("portable", "draft") == features_for("draft")
    check_features(tuple(FEATURES), "target")
    with pytest.raises(ConfigError, match="draft's probe cannot use the feature 'entropy'"):
        check_features(("mean", "entropy"), "draft")


def test_a_draft_probe_with_the_targets_features_is_refused_before_training(tmp_path: Path) -> None:
    problems = [ProblemText(f"problem {i}", "a") for i in range(20)]
    run_collect(tmp_path, problems)
    label(Collection(tmp_path), ExactJudge())
    epochs: list[Any] = []
    with pytest.raises(ConfigError, match="agreement"):
        train(Collection(tmp_path), "draft", "exact", TrainConfig(features=("agreement",)), epochs.append)
    assert not epochs
    probe = train(
        Collection(tmp_path), "target", "exact", TrainConfig(features=tuple(FEATURES), max_epochs=2)
    )
    assert {"auroc_entropy", "auroc_agreement", "auroc_sum_logprob"} <= probe.card.metrics.keys()
    scored = asyncio.run(make_pair().target.engine.score([0], [[2, 1]]))
    assert 0 < probe.estimate(scored[0]) <= 1


# --- full disks and killed processes -------------------------------------------------------------------------


@pytest.mark.parametrize("full_at", ["the states", "the rows"])
def test_a_full_disk_keeps_the_finished_problems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full_at: str
) -> None:
    """The disk is full in the middle of the third problem."""
    whole = run_collect(tmp_path / "whole")
    sync, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) >= (6 if full_at == "the states" else 7):  # a manifest, then two files a problem
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    data = tmp_path / "data"
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ProbeError) as caught:
        run_collect(data)
    said = str(caught.value)
    assert "No space left on device" in said
    assert "2 finished problems are kept" in said
    assert "rerun the same command to resume" in said
    assert sorted(path.suffix for path in (data / "problems").iterdir()) == [
        ".parquet",
        ".parquet",
        ".safetensors",
        ".safetensors",
    ]
    monkeypatch.setattr(os, "fsync", sync)
    assert_same(run_collect(data), whole)


def test_a_full_disk_ends_the_command_with_one_line(tmp_path: Path) -> None:
    script = (
        "import errno, os, sys; import semanticspec.training.stages as stages; "
        "sys.path.insert(0, sys.argv.pop(1)); from tests.support import collecting; "
        "stages.load_models = lambda *_, **__: collecting.make_pair()\n"
        "def full(_): raise OSError(errno.ENOSPC, 'No space left on device')\n"
        "sync, calls = os.fsync, []\n"
        "os.fsync = lambda d: (calls.append(d), full(d) if len(calls) > 3 else sync(d))\n"
        "from semanticspec.commands.main import main; main()"
    )
    problems = tmp_path / "problems.jsonl"
    problems.write_text("".join(json.dumps({"id": i, "prompt": "a"}) + "\n" for i in range(4)))
    arguments = ["probe", "collect", "--out", str(tmp_path / "data"), "--problems", str(problems)]
    command = [
        sys.executable,
        "-c",
        script,
        str(Path(__file__).parents[2]),
        *arguments,
        "--max-trace-tokens",
        "40",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "1 finished problems are kept" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "data" / "problems").glob(".*"))


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ProbeError, match=r"no collection can be written to .*file"):
        opened(tmp_path / "file" / "data")


def test_partial_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    opened(tmp_path)
    old, fresh = (tmp_path / "problems" / f".{name}.parquet.7.part" for name in ("old", "fresh"))
    for path in (old, fresh):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    opened(tmp_path)
    assert (old.exists(), fresh.exists()) == (False, True)


def assert_same(found: Sequence[Shard], expected: Sequence[Shard]) -> None:
    """Compares rows: ids, counts and ranks exactly, numbers up to rounding."""
    assert [shard.problem_id for shard in found] == [shard.problem_id for shard in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.contexts == other.contexts
        plain = [
            [
                replace(row, target_logprobs=(), draft_logprobs=(), target_entropies=())
                for row in shard.segments
            ]
            for shard in (one, other)
        ]
        assert plain[0] == plain[1]
        for row, like in zip(one.segments, other.segments, strict=True):
            for name in ("target_logprobs", "draft_logprobs", "target_entropies"):
                assert getattr(row, name) == pytest.approx(getattr(like, name), abs=1e-3)
        torch.testing.assert_close(one.target_states, other.target_states, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(one.draft_states, other.draft_states, atol=1e-3, rtol=1e-3)


@pytest.mark.slow
def test_sigkill_loses_and_repeats_no_problem(tmp_path: Path) -> None:
    """With the bundled pair, two problems at a time; killed when the first of five is stored."""

    def start(folder: str) -> subprocess.Popen[str]:
        arguments = (
            f"probe collect --num-problems 5 --samples 4 --max-contexts 2 --concurrency 2 --out {folder}"
        )
        command = [
            sys.executable,
            "-c",
            "from semanticspec.commands.main import main; main()",
            *arguments.split(),
        ]
        return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)

    whole, part = tmp_path / "whole", tmp_path / "part"
    running = start(str(whole))
    assert running.wait(timeout=300) == 0, running.communicate()[1]
    running = start(str(part))
    while not list(part.glob("problems/*.parquet")):
        assert running.poll() is None
        time.sleep(0.005)
    running.kill()
    running.wait()
    kept = len(Collection(part))
    assert 0 < kept < 5
    running = start(str(part))
    _, told = running.communicate(timeout=300)
    assert running.returncode == 0, told
    assert f"{5 - kept} problems collected ({kept} existed already)" in told
    assert "s per context" in told
    assert_same(list(Collection(part)), list(Collection(whole)))


# --- problems of data sets --------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Data sets in folders `org/...`, read by the real library; the working directory stands in for the hub."""

    def write(path: str, *rows: dict[str, Any]) -> None:
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def write_card(repo: str, configs: dict[str, list[str]]) -> None:
        lines = ["---", "configs:"]
        for config, splits in configs.items():
            lines += [f"- config_name: {config}", "  data_files:"]
            for split in splits:
                lines += [f"  - split: {split}", f"    path: {config}/{split}*.jsonl"]
        (tmp_path / repo / "README.md").write_text("\n".join([*lines, "---", ""]))

    write("org/sums/main/train1.jsonl", {"question": "three", "reasoning": "a\n\nb"})
    write("org/sums/main/train0.jsonl", *({"question": q, "reasoning": "a"} for q in ("one", "two")))
    write("org/sums/main/test.jsonl", {"question": "four", "reasoning": "a"})
    write("org/sums/other/test.jsonl", {"text": "five"})
    write_card("org/sums", {"main": ["train", "test"], "other": ["test"]})
    write("org/named/test.jsonl", {"id": 7, "prompt": "with"}, {"prompt": "without"})
    write("org/many/first/test.jsonl", {"problem": "six"})
    write("org/many/second/a.jsonl", {"problem": "seven"})
    write("org/many/second/b.jsonl", {"problem": "eight"})
    write_card("org/many", {"first": ["test"], "second": ["a", "b"]})
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("hub")
def test_problems_of_data_sets() -> None:
    assert read_problems("org/sums") == [("1", "one", ""), ("2", "two", ""), ("3", "three", "")]
    assert read_problems("org/sums:test") == [("1", "four", "")]
    assert read_problems("org/named") == [("7", "with", ""), ("2", "without", "")]
    assert read_problems("org/sums", 2, "reasoning") == [("1", "one", "a"), ("2", "two", "a")]
    assert read_problems("org/many", config="first") == [("1", "six", "")]
    assert read_problems("org/many:b", config="second") == [("1", "eight", "")]


def test_a_data_set_without_a_card_is_read_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text('{"problem": "nine"}\n')
    assert read_problems(f"{tmp_path}:test") == read_problems(str(tmp_path)) == [("1", "nine", "")]


def test_the_hub_is_asked_for_a_name_and_streams_the_first_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []

    def load_dataset(repo: str, config: str | None, *, split: str | None, streaming: bool) -> Any:
        calls.append((repo, config, split, streaming))
        return iter([{"problem": "a"}, {"problem": "b"}])

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.setattr("datasets.get_dataset_config_names", lambda _: ["main", "socratic"])
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    assert read_problems("openai/gsm8k:train", 1) == [("1", "a", "")]
    assert len(read_problems("openai/gsm8k:train", config="socratic")) == 2
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    assert read_problems("openai/gsm8k:train", 1) == [("1", "a", "")]
    assert calls == [
        ("openai/gsm8k", "main", "train", True),
        ("openai/gsm8k", "socratic", "train", False),
        ("openai/gsm8k", "main", "train", False),
    ]


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("source", "config", "said"),
    [
        ("org/unknown", None, r"org/unknown cannot be read \(ConnectionError: .*Offline"),
        ("org/sums:validation", None, r"Bad split: validation.*'train', 'test'.*org/sums:SPLIT"),
        ("org/sums", "third", "'third' not found.*'main', 'other'.*--config"),
        ("org/many", None, r"Config name is missing.*'first', 'second'.*--config"),
        ("org/many", "second", "several splits; choose one of org/many:a, org/many:b"),
        ("org/sums", "other", "row 1: expected one of the fields prompt, problem, question; got text"),
        ("demo.jsonl", "main", "not a data set"),
        ("no-such-file", None, "expected demo, a JSONL file, a folder with a data set, or the name"),
        ("nowhere/problems.jsonl", None, "cannot read problems from"),
    ],
)
def test_errors_of_data_sets_name_the_choices(source: str, config: str | None, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        read_problems(source, config=config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [None, 1])
def test_a_broken_or_empty_data_set_ends_in_one_line(hub: Path, count: int | None) -> None:
    path = hub / "org/sums/main/test.jsonl"
    path.write_text("{half")
    with pytest.raises(ConfigError, match="org/sums cannot be read") as caught:
        read_problems("org/sums:test", count)
    assert "\n" not in str(caught.value)
    path.write_text("")
    with pytest.raises(ConfigError, match=r"holds no problems|cannot be read"):
        read_problems("org/sums:test", count)


def test_without_the_datasets_package_the_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ProbeError, match=r"pip install .*probes"):
        read_problems("org/name")


# --- the command -------------------------------------------------------------------------------------------


def test_the_command_reads_traces_and_reports_what_it_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("semanticspec.training.stages.load_models", lambda *_, **__: make_pair())
    problems = tmp_path / "problems.jsonl"
    rows = ({"id": f"p{i}", "prompt": "a", "solution": "a\n\nb\n\nab"} for i in range(6))
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = tmp_path / "data"
    command = f"collect --out {data} --problems {problems} --traces solution --samples 4 --max-contexts 2"
    command += " --max-trace-tokens 40 --loop-share 0.5 --one-trace"
    for there in (0, 6):
        result = CliRunner().invoke(probe_app, command.split())
        assert result.exit_code == 0, (result.output, result.exception)
        told = " ".join(capfd.readouterr().err.split() + result.output.split())
        assert f"{6 - there} problems collected ({there} existed already)" in told
    shards = list(Collection(data))
    origins = {context.origin for shard in shards for context in shard.contexts}
    assert origins == {"loop", "given"}
    assert Collection(data).manifest.config["one_trace"] is True
    result = CliRunner().invoke(probe_app, [*command.split(), "--traces", "proof"])
    assert isinstance(result.exception, ConfigError)
    assert "'proof'" in str(result.exception)
