"""The replacement of vLLM's expand kernel."""

from __future__ import annotations

import torch

from semanticspec.engines.vllm.patches import _expand


def test_each_requests_value_is_expanded_to_its_tokens() -> None:
    values, ends = torch.tensor([0.5, 0.0, 0.75]), torch.tensor([2, 3, 3], dtype=torch.int32)
    expanded = torch.empty(3)
    _expand(expanded, values, ends, 0, 1, MAX_NUM_TOKENS=32)
    assert expanded.tolist() == [0.5, 0.5, 1.0]
