"""Install hints name the command that works for this kind of installation."""

from __future__ import annotations

import json
import shlex
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest

from semanticspec import install_hints
from semanticspec.install_hints import install_hint


@pytest.fixture
def installed_from(monkeypatch: pytest.MonkeyPatch):
    def set_url(url: str | None) -> None:
        text = None if url is None else json.dumps({"url": url})
        monkeypatch.setattr(
            install_hints, "distribution", lambda _: SimpleNamespace(read_text=lambda _: text)
        )

    return set_url


def test_from_a_package_index(installed_from):
    installed_from(None)
    assert install_hint("server") == "pip install 'semanticspec[server]'"


def test_from_a_checkout_with_a_space_in_its_path(installed_from, tmp_path: Path):
    checkout = tmp_path / "my checkout"
    checkout.mkdir()
    (checkout / "constraints.txt").write_text("")
    installed_from(checkout.as_uri())
    expected = ["pip", "install", "-c", str(checkout / "constraints.txt"), f"{checkout}[server]"]
    assert shlex.split(install_hint("server")) == expected


def test_from_a_wheel(installed_from, tmp_path: Path):
    wheel = tmp_path / "semanticspec-0.1.0-py3-none-any.whl"
    wheel.touch()
    installed_from(wheel.as_uri())
    assert shlex.split(install_hint("gguf"))[2] == f"semanticspec[gguf] @ {wheel.as_uri()}"


def test_from_a_source_tree_that_is_not_installed(monkeypatch: pytest.MonkeyPatch):
    def missing(_: str):
        raise PackageNotFoundError

    monkeypatch.setattr(install_hints, "distribution", missing)
    assert shlex.split(install_hint("gguf"))[-1] == f"{Path(__file__).parents[1]}[gguf]"
