"""A mistake of vLLM on CPUs, mended where it is found.

Extracting states takes vLLM's speculative slot, and every token then goes through its rejection sampler, which spreads
each request's temperature and top-p over its tokens. On CPUs vLLM 0.32 writes what it spreads into a copy, and the
sampler reads memory that nobody has filled: temperatures of anything. Greedy requests are right. Source: vLLM pull
request 42638 tells of the same mistake in an earlier form.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)
_KERNEL = "vllm.v1.sample.rejection_sampler.expand_kernel"


def mend_expansion() -> bool:
    """Has vLLM spread values right in this process; nothing happens where it does so already.

    Returns:
        Whether there was something to mend.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu() or _spreads_right():
        return False
    from vllm.triton_utils.dispatcher import register_kernels

    register_kernels({_KERNEL: _expand})
    if not _spreads_right():
        raise RuntimeError(
            "vLLM's sampler cannot be mended on this CPU; semanticspec does not work with this version of it"
        )
    logger.info("mended vLLM's sampling on CPUs")
    return True


def _spreads_right() -> bool:
    from vllm.v1.sample.rejection_sampler import expand_batch_to_tokens

    values = torch.tensor([0.25, 0.75])
    spread = expand_batch_to_tokens(
        values, torch.tensor([1, 3], dtype=torch.int32), 3, replace_from=0, replace_to=1
    )
    return torch.equal(spread, torch.tensor([0.25, 0.75, 0.75]))


def _expand(
    output: Tensor,
    input_val: Tensor,
    cu_num_tokens: Tensor,
    replace_from: Any,
    replace_to: Any,
    *_: Any,
    **__: Any,
) -> None:
    """Fills `output`, `[tokens]`, with each request's value of `input_val`, `[requests]`, as often as it has tokens."""
    counts = cu_num_tokens.diff(prepend=cu_num_tokens.new_zeros(1))
    values = input_val.masked_fill(input_val == replace_from, replace_to)
    output.copy_(values.repeat_interleave(counts))
