"""Collecting with a scripted pair: rows, limits, and interrupted runs."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from hashlib import blake2b
from math import log
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
import torch

from semanticspec.demo.exact_judge import ExactJudge
from semanticspec.errors import ConfigError, ProbeError
from semanticspec.probes.states import Ragged
from semanticspec.problems.sources import ProblemText
from semanticspec.training.data.collect import collect
from semanticspec.training.data.storage import Collection, Shard
from semanticspec.training.labels.label import label
from tests.support.collecting import (
    CONFIG,
    PROBLEMS,
    content,
    make_pair,
    next_probabilities,
    run_collect,
    scripted_pair,
)


def test_collected_rows(tmp_path: Path) -> None:
    collection = run_collect(tmp_path)
    shards = list(collection)
    assert {shard.problem_id for shard in shards} == {problem.problem_id for problem in PROBLEMS}
    origins = [context.origin for shard in shards for context in shard.contexts]
    assert origins.count("loop") >= len(origins) / 3
    for shard in shards:
        assert len({context.text for context in shard.contexts}) == len(shard.contexts)
        for context in shard.contexts:
            rows = [row for row in shard.segments if row.context_id == context.context_id]
            for author in ("target", "draft"):
                own = [row for row in rows if row.author == author]
                assert sum(row.count for row in own) == CONFIG.num_samples
                assert len({row.token_ids for row in own}) == len(own)
            assert all(len(row.target_logprobs) == len(row.token_ids) for row in rows)
            assert all(bool(row.draft_logprobs) == (row.author == "draft") for row in rows)
        assert shard.target_states.shape == shard.draft_states.shape == (len(shard.segments), 6)
    first = next(row for row in shards[0].segments if row.author == "draft" and row.text.startswith("a"))
    state = shards[0].target_states[shards[0].segments.index(first)]
    assert state[0] == pytest.approx(0.35)  # mean of 0.7 before the letter and 0 behind it: the target's own


def test_a_kill_in_the_middle_loses_and_doubles_nothing(tmp_path: Path) -> None:
    whole = run_collect(tmp_path / "whole")
    finished: list[Any] = []

    def stop_after_three(shard: Shard | None) -> None:
        finished.append(shard)
        if len(finished) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_collect(tmp_path / "part", on_progress=stop_after_three)
    part = Collection(tmp_path / "part")
    assert 3 <= len(part) < len(PROBLEMS)
    half = next(iter((part.folder / "problems").glob("*.parquet")))  # killed between its two files
    half.unlink()
    kept = len(part)
    seen: list[Any] = []
    run_collect(tmp_path / "part", on_progress=seen.append)
    assert seen.count(None) == kept
    assert content(part.folder) == content(whole.folder)


def test_other_settings_need_another_folder(tmp_path: Path) -> None:
    run_collect(tmp_path, PROBLEMS[:1])
    other = replace(CONFIG, num_samples=4)
    with pytest.raises(ProbeError, match=r"config\.num_samples is 6 in the folder and 4 in this run"):
        asyncio.run(collect(make_pair(), PROBLEMS, other, tmp_path))
    with pytest.raises(ConfigError, match="same id"):
        run_collect(tmp_path, [PROBLEMS[0], PROBLEMS[0]])


def test_contexts_can_be_limited(tmp_path: Path) -> None:
    config = replace(CONFIG, max_contexts=3)
    collection = asyncio.run(collect(make_pair(), PROBLEMS, config, tmp_path))
    for shard in collection:
        assert len(shard.contexts) <= 3
        assert sum(context.origin == "loop" for context in shard.contexts) >= len(shard.contexts) / 3


def test_a_prompt_without_room_is_skipped(tmp_path: Path) -> None:
    (shard,) = run_collect(tmp_path, [ProblemText("long", "a" * 5000)])
    assert "5000 tokens" in shard.skipped
    assert not shard.segments


def test_every_state_is_stored_with_its_segment(collections: dict[str, Collection]) -> None:
    target = next_probabilities(0.7)
    pair, checked = scripted_pair("none"), 0
    for mean, last, every in zip(*(collections[name] for name in ("mean", "last", "none")), strict=True):
        assert mean.segments == last.segments == every.segments
        for role in ("target", "draft"):
            states = getattr(every, f"{role}_states")
            of_role = [getattr(segment, f"{role}_logprobs") for segment in every.segments]
            assert states.lengths.tolist() == [len(logprobs) for logprobs in of_role]
            drafted = [
                i for i, segment in enumerate(every.segments) if role == "target" or segment.author == "draft"
            ]
            torch.testing.assert_close(states[drafted].mean(), getattr(mean, f"{role}_states")[drafted])
            torch.testing.assert_close(states[drafted].last(), getattr(last, f"{role}_states")[drafted])
        first, context = every.segments[0], every.contexts[0]
        ids = [
            *pair.target.vocabulary.render_prompt(every.prompt),
            *pair.target.vocabulary.encode(context.text),
        ]
        told = [target([*ids, *first.token_ids[:end]]) for end in range(len(first.token_ids))]
        torch.testing.assert_close(every.target_states[[0]].values, torch.tensor(told, dtype=torch.float32))
        checked += len(every.segments)
    assert checked > 100


def test_more_or_fewer_states_than_tokens_are_told(
    tmp_path: Path, collections: dict[str, Collection]
) -> None:
    shard = next(iter(collections["none"]))
    copy = Collection(tmp_path)
    copy.open(collections["none"].manifest)
    copy.write(shard)
    (found,) = copy
    assert torch.equal(found.target_states.values, shard.target_states.values)  # type: ignore[union-attr]
    assert isinstance(shard.draft_states, Ragged)
    short = Ragged(shard.draft_states.values[1:], shard.draft_states.lengths)
    copy.write(replace(shard, draft_states=short))
    with pytest.raises(ProbeError, match=r"file is broken \(\d+ states of the draft for \d+ tokens\)"):
        list(copy)


def test_older_collections_hold_means_of_the_last_layer(tmp_path: Path) -> None:
    """Without the manifest's newer keys they are read, and gone on with, as before."""
    collection = asyncio.run(collect(make_pair(), PROBLEMS[:2], CONFIG, tmp_path))
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text())
    for role in ("target", "draft"):
        assert (manifest[role].pop("layer"), manifest[role].pop("pooling")) == (-1, "mean")
    for shard in (tmp_path / "problems").iterdir():
        shard.unlink()  # they are stamped with the newer manifest
    path.write_text(json.dumps(manifest))
    older = Collection(tmp_path)
    assert older.pooling("target") == "mean"
    assert older.manifest == collection.manifest
    asyncio.run(collect(make_pair(), PROBLEMS[:2], CONFIG, tmp_path))
    assert len(list(Collection(tmp_path))) == 2
    assert "pooling" not in json.loads(path.read_text())["target"]
    label(Collection(tmp_path), ExactJudge())
    stamp = pyarrow.parquet.read_schema(tmp_path / "meanings-exact.parquet").metadata[b"collection"]
    assert (
        stamp.decode() == blake2b(json.dumps(manifest).encode(), digest_size=10).hexdigest()
    )  # as it was before
    with pytest.raises(ProbeError, match=r"made with other settings: draft\.pooling is"):
        asyncio.run(collect(scripted_pair("none"), PROBLEMS, CONFIG, tmp_path))


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
