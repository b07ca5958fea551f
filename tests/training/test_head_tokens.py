"""The tokens of a cut head: the most frequent ones, and those that are always kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from semanticspec.errors import ConfigError
from semanticspec.training.head_tokens import choose_head_tokens, read_texts
from tests.support.vocabularies import A, B, C, D, make_vocabulary

ADDED = {6, 7, 8}


def test_the_most_frequent_tokens_are_kept() -> None:
    chosen = choose_head_tokens(make_vocabulary(), ["ddd", "bdb"], 5)
    assert set(chosen.ids) == {B, D, *ADDED}
    assert (chosen.num_counted, chosen.coverage) == (6, 1.0)
    chosen = choose_head_tokens(make_vocabulary(), ["ddd", "bdb"], 4)
    assert set(chosen.ids) == {D, *ADDED}
    assert chosen.coverage == pytest.approx(4 / 6)


def test_low_ids_follow_where_the_texts_have_too_few_tokens() -> None:
    assert set(choose_head_tokens(make_vocabulary(), ["d"], 6).ids) == {A, B, D, *ADDED}
    assert set(choose_head_tokens(make_vocabulary(), [], 6).ids) == {A, B, C, *ADDED}


@pytest.mark.parametrize("size", [3, 9])
def test_sizes_out_of_range_are_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=f"size is {size}; expected more than 3 .* and less than 9"):
        choose_head_tokens(make_vocabulary(), ["a"], size)


def test_texts_of_files(tmp_path: Path) -> None:
    plain, rows = tmp_path / "text.md", tmp_path / "rows.jsonl"
    plain.write_text("one\ntwo")
    lines = [{"text": "a\u2028b", "other": "c"}, {"other": "d"}]
    rows.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    assert list(read_texts(plain, ["text"])) == ["one\ntwo"]
    assert list(read_texts(rows, ["text", "other"])) == ["a\u2028b", "c", "d"]
    with pytest.raises(ConfigError, match=r"row 2: expected an object with text in text"):
        list(read_texts(rows, ["text"]))
    with pytest.raises(ConfigError, match=r"there is no file .*missing.txt; expected"):
        list(read_texts(tmp_path / "missing.txt", ["text"]))
