"""Target and draft on two devices: the output is that of the same pair on one."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from semanticspec import generate
from semanticspec.config import RULES
from tests.support.devices import PlacedTensor, make_pair_on
from tests.support.scripted_pairs import config, make_pair

OPTIMIZATIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "partial-acceptance": {"partial_acceptance": True},
    "token-speculation": {"num_speculative_tokens": 4},
    "all": {"partial_acceptance": True, "num_speculative_tokens": 4, "overlap": True},
}


def test_the_emulation_refuses_what_torch_refuses() -> None:
    on_gpu = PlacedTensor.of(torch.ones(3), torch.device("cuda:0"))
    with pytest.raises(RuntimeError, match=r"same device, but found \['cpu', 'cuda:0'\]"):
        on_gpu + torch.ones(3)
    assert (on_gpu + torch.tensor(2.0)).device == on_gpu.device
    assert (on_gpu.cpu() + torch.ones(3)).tolist() == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("places", [("cuda:0", "cuda:1"), ("cuda:0", "cpu"), ("cpu", "mps")])
@pytest.mark.parametrize("optimizations", OPTIMIZATIONS)
@pytest.mark.parametrize("rule", RULES)
def test_a_pair_on_two_devices_writes_what_it_writes_on_one(
    rule: str, optimizations: str, places: tuple[str, str]
) -> None:
    decoding = config(rule, seed=3, **OPTIMIZATIONS[optimizations])
    assert generate(make_pair_on(*places), "a", decoding).text == generate(make_pair(), "a", decoding).text
