"""Whatever a draft proposes, a configuration that is called lossless gives the target's distribution."""

from __future__ import annotations

import os

import pytest

from tests.support.lossless import random_case

CASES = int(os.environ.get("SEMANTICSPEC_LOSSLESS_CASES", "24"))
TRIALS = int(os.environ.get("SEMANTICSPEC_LOSSLESS_TRIALS", "1500"))


@pytest.mark.parametrize("seed", range(CASES))
def test_a_lossless_configuration_gives_the_targets_distribution(seed: int) -> None:
    case = random_case(seed)
    assert not case.config.lossy
    p_value = case.p_value(TRIALS)
    assert p_value > 1e-5, f"p = {p_value:.2g}: {case.config}"
