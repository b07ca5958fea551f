"""Replaces the head of a transformers model by one with fewer tokens, see `runtime.head_tokens`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from semanticspec.engines.runtime.head_tokens import HeadTokens
from semanticspec.errors import ModelError

_TEST_TOKENS = 4
# Relative to the largest logit: kernels for another number of rows add up in another order, in bfloat16.
_TOLERANCE = 1e-2


class CutHead(nn.Module):
    """A head that computes the logits of some tokens. All others are minus infinity, so the width stays the same."""

    token_ids: Tensor

    def __init__(self, head: nn.Linear, tokens: HeadTokens) -> None:
        super().__init__()
        self._tokens = tokens
        ids = torch.tensor(tokens.ids, device=head.weight.device)
        self.register_buffer("token_ids", ids, persistent=False)
        self.linear = nn.Linear(
            head.in_features, len(ids), bias=head.bias is not None, device="meta", dtype=head.weight.dtype
        )
        self.linear.weight = nn.Parameter(head.weight.detach()[ids], requires_grad=False)
        if head.bias is not None:
            self.linear.bias = nn.Parameter(head.bias.detach()[ids], requires_grad=False)

    def forward(self, states: Tensor) -> Tensor:
        """Returns logits `[..., vocabulary]` of states `[..., hidden]`."""
        return self._tokens.widen(self.linear(states), self.token_ids)


@torch.inference_mode()
def cut_head(model: Any, path: str) -> None:
    """Cuts a model's head to the tokens in a file, and checks that the model gives them the same logits.

    Raises:
        ConfigError: The file cannot be read, or its ids do not fit the model.
        ModelError: The model has no plain linear head, or changes its logits after the head.
    """
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear:
        raise ModelError(
            "the head of this model is not a plain linear layer and cannot be cut; omit head_tokens"
        )
    tokens = HeadTokens.read(path, head.out_features)
    ids = torch.tensor([tokens.ids[:_TEST_TOKENS]], device=head.weight.device)
    expected = model(input_ids=ids, use_cache=False).logits.float()
    with torch.inference_mode(False):  # the engine's other weights are no inference tensors either
        model.set_output_embeddings(CutHead(head, tokens))
    logits = model(input_ids=ids, use_cache=False).logits.float()
    kept = torch.zeros(expected.shape[-1], dtype=torch.bool, device=ids.device)
    kept[list(tokens.ids)] = True
    tolerance = _TOLERANCE * float(expected.abs().max())
    same = torch.allclose(logits[..., kept], expected[..., kept], rtol=0, atol=tolerance)
    if not same or bool((logits[..., ~kept] > -torch.inf).any()):
        raise ModelError(
            "this model changes its logits after the head, which would give cut tokens a probability; omit head_tokens"
        )
