"""Tokenizers of GGUF files: converted once per content, whatever the file's name."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from semanticspec.errors import ModelError
from semanticspec.output.conversion_cache import CACHE_VARIABLE
from semanticspec.text.gguf_files import conversion_key
from semanticspec.text.vocabulary import Vocabulary
from tests.support.vocabularies import make_vocabulary


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file without an embedded tokenizer; only the conversion reads more of it than its bytes."""
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF" + bytes(range(256)) * 8)
    return path


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces the conversion by the tokenizer of the tests; records the files it reads."""
    converted: list[str] = []

    def from_pretrained(_name: str, *, gguf_file: str, **_: Any) -> Any:
        converted.append(gguf_file)
        return make_vocabulary().tokenizer

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", from_pretrained)
    return converted


def test_a_tokenizer_is_converted_once(
    file: Path, conversions: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        first = Vocabulary.load(str(file))
    assert "converting the tokenizer of model.gguf" in caplog.text
    caplog.clear()
    second = Vocabulary.load(str(file))
    assert conversions == ["model.gguf"]
    assert caplog.text == ""
    backends = [each.tokenizer.backend_tokenizer.to_str() for each in (first, second)]
    assert backends[0] == backends[1]
    assert (first.end_ids, first.think_end_id) == (second.end_ids, second.think_end_id)
    assert first.tokenizer.chat_template == second.tokenizer.chat_template


def test_the_key_is_the_content_not_the_name(file: Path, conversions: list[str]) -> None:
    Vocabulary.load(str(file))
    renamed = shutil.copy(file, file.with_name("renamed.gguf"))
    Vocabulary.load(str(renamed))
    assert conversions == ["model.gguf"]
    changed = bytearray(file.read_bytes())
    changed[-1] ^= 1
    file.write_bytes(changed)
    Vocabulary.load(str(file))
    assert conversions == ["model.gguf", "model.gguf"]


def test_a_key_of_the_first_bytes_ignores_the_rest(file: Path) -> None:
    whole, start = conversion_key(file), conversion_key(file, 1000)
    file.write_bytes(file.read_bytes() + b"more")
    assert conversion_key(file, 1000) == start
    assert conversion_key(file) != whole


@pytest.mark.usefixtures("conversions")
def test_a_broken_kept_tokenizer_is_named(file: Path, cache: Path) -> None:
    Vocabulary.load(str(file))
    (kept,) = (cache / "gguf").iterdir()
    (kept / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="delete this folder"):
        Vocabulary.load(str(file))
