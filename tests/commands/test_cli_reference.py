"""The pages in docs/reference/cli are those that the commands give."""

from __future__ import annotations

import pytest

from docs.generate_cli import FOLDER, pages


def test_the_pages_are_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    there = {page.name: page.read_text(encoding="utf-8") for page in FOLDER.glob("*.md")}
    wanted = pages()
    different = sorted(name for name in there.keys() | wanted.keys() if there.get(name) != wanted.get(name))
    assert not different, (
        f"{', '.join(different)} in docs/reference/cli differ from the commands: run `make docs-cli`"
    )


def test_every_option_and_every_command_is_there() -> None:
    wanted = pages()
    assert "| `--num-problems`, `-n` |" in wanted["bench.md"]
    assert "| `--out` | required |" in wanted["bench-join.md"]
    assert "[`semanticspec probe collect`](probe-collect.md)" in wanted["probe.md"]
    assert "`SEMANTICSPEC_API_KEY`" in wanted["serve.md"]
    assert "| `--seed` | `0` |" in wanted["generate.md"]
    assert not any("levers" in page for page in wanted.values())
