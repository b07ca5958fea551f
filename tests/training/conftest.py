"""Fixtures shared by the tests of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.judging import FakeEndpoint, make_nli


@pytest.fixture(scope="module")
def nli_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_nli(tmp_path_factory.mktemp("nli") / "model")


@pytest.fixture
def endpoint() -> Iterator[Callable[..., FakeEndpoint]]:
    made: list[FakeEndpoint] = []

    def make(*args: Any, **options: Any) -> FakeEndpoint:
        made.append(FakeEndpoint(*args, **options))
        return made[-1]

    yield make
    for server in made:
        server.close()
