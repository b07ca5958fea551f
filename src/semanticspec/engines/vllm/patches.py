"""Works around a bug of vLLM on CPUs.

`extract_hidden_states` takes vLLM's slot for speculative decoding, so all tokens go through its rejection sampler. That
expands each request's temperature and top-p to its tokens. On CPUs, vLLM 0.32 expands into a copy, and the sampler
reads uninitialized memory. Greedy requests are not affected. Source: vLLM pull request 42638 describes an earlier form.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)
_KERNEL = "vllm.v1.sample.rejection_sampler.expand_kernel"


def patch_sampler() -> bool:
    """Replaces vLLM's expand kernel in this process, if it has the bug.

    Returns:
        Whether it was replaced.

    Raises:
        RuntimeError: The replacement does not work either.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu() or _expands_correctly():
        return False
    from vllm.triton_utils.dispatcher import register_kernels

    register_kernels({_KERNEL: _expand})
    if not _expands_correctly():
        raise RuntimeError(
            "cannot patch vLLM's sampler on this CPU; semanticspec does not support this version"
        )
    logger.info("patched vLLM's sampler for CPUs")
    return True


def _expands_correctly() -> bool:
    from vllm.v1.sample.rejection_sampler import expand_batch_to_tokens

    values = torch.tensor([0.25, 0.75])
    expanded = expand_batch_to_tokens(
        values, torch.tensor([1, 3], dtype=torch.int32), 3, replace_from=0, replace_to=1
    )
    return torch.equal(expanded, torch.tensor([0.25, 0.75, 0.75]))


def _expand(
    output: Tensor,
    input_val: Tensor,
    cu_num_tokens: Tensor,
    replace_from: Any,
    replace_to: Any,
    *_: Any,
    **__: Any,
) -> None:
    """Fills `output` `[tokens]` with each request's value of `input_val` `[requests]`, once per token."""
    counts = cu_num_tokens.diff(prepend=cu_num_tokens.new_zeros(1))
    values = input_val.masked_fill(input_val == replace_from, replace_to)
    output.copy_(values.repeat_interleave(counts))
