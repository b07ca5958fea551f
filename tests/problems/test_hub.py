"""Problems of data sets: on the Hugging Face hub and in local folders."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from semanticspec.errors import ConfigError, ProbeError
from semanticspec.problems.sources import read_problems


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
    assert read_problems("org/sums") == [("1", "one", "", ""), ("2", "two", "", ""), ("3", "three", "", "")]
    assert read_problems("org/sums:test") == [("1", "four", "", "")]
    assert read_problems("org/named") == [("7", "with", "", ""), ("2", "without", "", "")]
    assert read_problems("org/sums", 2, "reasoning") == [("1", "one", "a", ""), ("2", "two", "a", "")]
    assert read_problems("org/many", config="first") == [("1", "six", "", "")]
    assert read_problems("org/many:b", config="second") == [("1", "eight", "", "")]


def test_a_data_set_without_a_card_is_read_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_text('{"problem": "nine"}\n')
    assert read_problems(f"{tmp_path}:test") == read_problems(str(tmp_path)) == [("1", "nine", "", "")]


def test_the_hub_is_asked_for_a_name_and_streams_the_first_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []

    def load_dataset(repo: str, config: str | None, *, split: str | None, streaming: bool) -> Any:
        calls.append((repo, config, split, streaming))
        return iter([{"problem": "a"}, {"problem": "b"}])

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.setattr("datasets.get_dataset_config_names", lambda _: ["main", "socratic"])
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("semanticspec.problems.hub.why_unreachable", lambda: "")
    assert read_problems("openai/gsm8k:train", 1) == [("1", "a", "", "")]
    assert len(read_problems("openai/gsm8k:train", config="socratic")) == 2
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    assert read_problems("openai/gsm8k:train", 1) == [("1", "a", "", "")]
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
