"""Fixtures shared by the tests of training."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from semanticspec.demo.exact_judge import ExactJudge
from semanticspec.training.data.collect import collect
from semanticspec.training.data.storage import Collection
from semanticspec.training.labels.label import label
from tests.support.collecting import CONFIG, many_problems, scripted_pair
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


@pytest.fixture(scope="session")
def collections(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Collection]:
    """The same problems, collected with every pooling and labelled."""
    folder = tmp_path_factory.mktemp("data")
    found = {}
    for pooling in ("mean", "last", "none"):
        found[pooling] = asyncio.run(
            collect(scripted_pair(pooling), many_problems(), CONFIG, folder / pooling)
        )
        label(found[pooling], ExactJudge())
    return found
