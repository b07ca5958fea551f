"""Answers that the target has written before, as traces."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from semanticspec.errors import ConfigError, ProbeError
from semanticspec.problems.sources import ProblemText
from semanticspec.training.data.answers import WrittenAnswers
from semanticspec.training.data.collect import collect
from tests.support.collecting import CONFIG, PROBLEMS, make_pair, make_vocabulary

WRITTEN = "a\n\nb\n\nab\n\n</think>"


def write_answers(
    folder: Path, problems: Sequence[ProblemText], fingerprint: str = "", **changes: Any
) -> WrittenAnswers:
    """A folder as `draft align` writes it."""
    vocabulary = make_vocabulary()
    settings = {"model": "some/model", "revision": "abc", "settings": {"seed": 0}}
    folder.mkdir(parents=True, exist_ok=True)
    settings_text = json.dumps({**settings, "fingerprint": fingerprint or vocabulary.fingerprint})
    (folder / "settings.json").write_text(settings_text)
    rows = [
        {
            "problem_id": problem.problem_id,
            "sample": 0,
            "prompt": problem.prompt,
            "token_ids": vocabulary.encode(WRITTEN),
            "finished": True,
            "right": None,
            "nuclei": [],
        }
        | changes
        for problem in problems
    ]
    (folder / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return WrittenAnswers.read(folder)


def test_answers_replace_the_traces_that_the_target_would_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("a trace was decoded")

    monkeypatch.setattr("semanticspec.training.data.contexts.decode", never)
    answers = write_answers(tmp_path / "answers", PROBLEMS[:2])
    config = replace(CONFIG, loop_share=0)
    shards = list(asyncio.run(collect(make_pair(), PROBLEMS[:2], config, tmp_path / "data", answers=answers)))
    for shard in shards:
        assert [(context.origin, context.text) for context in shard.contexts] == [
            ("target", text) for text in ("", "a\n\n", "a\n\nb\n\n", "a\n\nb\n\nab\n\n")
        ]


def test_a_collection_says_what_its_answers_were_made_by(tmp_path: Path) -> None:
    answers = write_answers(tmp_path / "answers", PROBLEMS[:1])
    collection = asyncio.run(collect(make_pair(), PROBLEMS[:1], CONFIG, tmp_path / "data", answers=answers))
    made_by = {"model": "some/model", "revision": "abc", "settings": {"seed": 0}}
    assert collection.manifest.config["answers"] == made_by
    asyncio.run(collect(make_pair(), PROBLEMS[:2], CONFIG, tmp_path / "data", answers=answers))  # resumes
    with pytest.raises(ProbeError, match="made with other settings"):
        asyncio.run(collect(make_pair(), PROBLEMS[:2], CONFIG, tmp_path / "data"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fingerprint": "f00d"}, r"by 'some/model' with the vocabulary 'f00d'"),
        ({"prompt": "another"}, r"'problem 0' in .* was written for another prompt"),
    ],
)
def test_answers_of_another_model_or_prompt_are_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    answers = write_answers(tmp_path / "answers", PROBLEMS[:1], **changes)
    with pytest.raises(ConfigError, match=message):
        asyncio.run(collect(make_pair(), PROBLEMS[:1], CONFIG, tmp_path / "data", answers=answers))
    assert not (tmp_path / "data").exists()


def test_a_folder_without_answers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match=r"settings\.json cannot be read"):
        WrittenAnswers.read(tmp_path)
    with pytest.raises(ProbeError, match="holds no answers yet"):
        write_answers(tmp_path, [])
    with pytest.raises(ProbeError, match=r"answers\.jsonl is broken"):
        write_answers(tmp_path, PROBLEMS[:1], token_ids=None)
