"""Collections: what a row holds, files that are broken or foreign, given traces, and where problems come from."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch
from test_probes import CONFIG, PROBLEMS, make_pair, next_probabilities

from semanticspec.errors import ConfigError, ProbeError
from semanticspec.probes import storage
from semanticspec.probes.collect import CollectConfig, collect
from semanticspec.probes.problems import ProblemText, read_problems
from semanticspec.probes.storage import Collection, ContextRecord, SegmentRecord, Shard

# --- rows --------------------------------------------------------------------------------------------------


def run_collect(
    folder: Path, problems: Sequence[ProblemText] = PROBLEMS, config: CollectConfig = CONFIG
) -> list[Shard]:
    return list(asyncio.run(collect(make_pair(), problems, config, folder)))


def test_both_kinds_of_rows_hold_what_the_target_says(tmp_path: Path) -> None:
    """Against the scripted target's own table, token by token."""
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


def test_every_text_of_a_context_is_scored_once(tmp_path: Path) -> None:
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


def test_a_trace_is_written_only_if_contexts_come_from_it(tmp_path: Path) -> None:
    origins = {
        name: {
            context.origin
            for shard in run_collect(tmp_path / name, config=config)
            for context in shard.contexts
        }
        for name, config in {
            "one context": replace(CONFIG, max_contexts=1),
            "no loop": replace(CONFIG, loop_share=0),
        }.items()
    }
    assert origins == {"one context": {"loop"}, "no loop": {"target"}}
    problems = [ProblemText(f"number {i}", "ab"[i % 2]) for i in range(40)]
    shards = run_collect(tmp_path / "one trace", problems, replace(CONFIG, one_trace=True, max_contexts=2))
    each = [{context.origin for context in shard.contexts} for shard in shards]
    assert all(len(found) == 1 for found in each)
    assert 10 <= each.count({"loop"}) <= 30


# --- given traces ------------------------------------------------------------------------------------------


def test_given_traces_are_cut_at_their_boundaries(tmp_path: Path) -> None:
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


def test_a_trace_without_a_boundary_is_told_before_any_work(tmp_path: Path) -> None:
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
    collection.open({"config": {"seed": 0}, **manifest})
    return collection


def test_a_shard_comes_back_as_it_was(tmp_path: Path) -> None:
    collection, shard = opened(tmp_path), shard_of()
    collection.write(shard)
    (found,) = collection
    assert replace(found, target_states=shard.target_states, draft_states=shard.draft_states) == shard
    assert torch.equal(found.target_states, shard.target_states)
    assert torch.equal(found.draft_states, shard.draft_states)


def test_rows_can_be_read_by_anyone(tmp_path: Path) -> None:
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


def test_broken_and_foreign_files_are_told_by_name(tmp_path: Path) -> None:
    collection = opened(tmp_path / "data")
    collection.write(shard_of())
    (path,) = (collection.folder / "problems").glob("*.parquet")
    rows, states = path.read_bytes(), path.with_suffix(".safetensors").read_bytes()

    def said() -> str:
        with pytest.raises(ProbeError) as caught:
            list(Collection(collection.folder))
        assert path.name in str(caught.value)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    path.write_bytes(rows[: len(rows) // 2])
    assert "is broken" in said()
    pyarrow.parquet.write_table(pyarrow.table({"x": [1]}), path)
    assert "no shard of format 2 (its format is unknown)" in said()
    table = pyarrow.parquet.read_table(pyarrow.BufferReader(rows))
    pyarrow.parquet.write_table(
        table.replace_schema_metadata({**table.schema.metadata, b"format": b"3"}), path
    )
    assert "its format is 3" in said()
    other = opened(tmp_path / "other", target="another model")
    other.write(shard_of())
    path.write_bytes((other.folder / "problems" / path.name).read_bytes())
    assert "of another collection" in said()
    path.write_bytes(rows)
    shard = shard_of("two")
    collection.write(shard)
    path.with_suffix(".safetensors").write_bytes(states[:50])
    assert "is broken" in said()
    collection.write(shard_of(target_states=torch.zeros(3, 6)))
    assert "differ in length" in said()
    path.with_suffix(".safetensors").write_bytes(states)
    path.write_bytes(next(p for p in path.parent.glob("*.parquet") if p != path).read_bytes())
    assert "another problem" in said()


def test_a_collection_of_an_older_format_is_told(tmp_path: Path) -> None:
    opened(tmp_path)
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 1}))
    with pytest.raises(
        ProbeError, match=r"manifest\.json is of format 1.* reads 2; collect into a new folder"
    ):
        opened(tmp_path)


def test_without_pyarrow_the_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(storage.importlib, "import_module", missing)
    with pytest.raises(ProbeError, match=r"pip install 'semanticspec\[probes\]'"):
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
    with pytest.raises(ConfigError, match="line 1: not JSON"):
        read_problems(str(path))
    with pytest.raises(ConfigError, match="demo's problems have no traces"):
        read_problems("demo", trace_field="solution")
