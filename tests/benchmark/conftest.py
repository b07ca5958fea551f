"""Fixtures of the benchmark's tests."""

import pytest

from semanticspec.decoding.pair import Pair
from semanticspec.loading import load_pair


@pytest.fixture(scope="module")
def pair() -> Pair:
    return load_pair()
