"""Losses of an alignment, one value per position. All are computed at the serving temperature.

Sources: DistillSpec (arXiv 2310.08461) for `kl`; LK losses (arXiv 2602.23881) for `acceptance`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from semanticspec.training.align.settings import Loss

_SMALLEST = 1e-6


def position_losses(
    loss: Loss, logits: Tensor, token_ids: Tensor, nucleus_ids: Tensor | None, nucleus: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Returns losses and acceptance probabilities, each `[positions]`.

    Args:
        logits: of the draft, divided by the temperature, `[positions, vocabulary]`, float32.
        token_ids: of the target, `[positions]`.
        nucleus_ids, nucleus: the target's distributions, `[positions, entries]`; None where only `tokens` is possible.
            The acceptance is then the draft's probability of the target's token.
    """
    normalizer = logits.logsumexp(-1)
    token_logprobs = logits.gather(-1, token_ids[:, None])[:, 0] - normalizer
    if nucleus_ids is None or nucleus is None:
        return -token_logprobs, token_logprobs.detach().exp()
    logprobs = logits.gather(-1, nucleus_ids) - normalizer[:, None]
    overlap = torch.minimum(nucleus, logprobs.exp()).sum(-1)
    if loss == "tokens":
        losses = -token_logprobs
    elif loss == "kl":
        losses = (nucleus * (nucleus.clamp_min(_SMALLEST).log() - logprobs)).sum(-1)
    else:
        losses = -overlap.clamp_min(_SMALLEST).log()
    return losses, overlap.detach()
