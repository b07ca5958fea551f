"""A causal LM of transformers seen as two functions: tokens to last-layer states, and states to logits."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from semanticspec.engines.transformers_cache import GrowingLayer
from semanticspec.errors import ModelError, first_line

# Short, and cut at 3 to compare a pass in two pieces over the cache with a pass in one.
_CHECK_TOKENS = 7
_CHECK_CUT = 3
# Same operations on the same numbers: anything above rounding means the model does more than base and head.
_SAME_LOGITS = 1e-3
# Another order of summation, in half precision too; a cache that is not used properly is off by far more.
_SAME_STATES = {torch.float32: 1e-2, torch.float16: 5e-2, torch.bfloat16: 2e-1}


class Network:
    """Runs the base model without its head, so that logits are computed only where they are needed.

    Some models scale or cap their logits outside the head. For those the whole model runs, and the base
    model's state is caught by a hook on the way.

    Attributes:
        model: the causal LM as transformers loaded it.
        reusable: whether the cache of this model can be cut back to any length. False for sliding windows and
            recurrent states; then every call computes its context from cold.
    """

    def __init__(self, model: Any) -> None:
        """Checks that the model's parts behave as this class needs, on a few tokens.

        Raises:
            ModelError: the model cannot continue from a cache.
        """
        self.model = model
        self._base = model.base_model
        self._head = model.get_output_embeddings()
        self._caught: Any = None
        self.device = next(model.parameters()).device
        text_config = model.config.get_text_config(decoder=True)
        self.hidden_size = int(text_config.hidden_size)
        self.num_layers = int(text_config.num_hidden_layers)
        self.vocabulary_size = int(text_config.vocab_size)
        self.reusable = all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)
        self._whole = False
        with torch.inference_mode():
            self._check()

    def new_cache(self) -> Cache:
        """An empty cache: ours where the model's layers allow it, else the kind transformers makes for it."""
        if self.reusable:
            return Cache(layers=[GrowingLayer() for _ in range(self.num_layers)])
        return DynamicCache(config=self.model.config)

    def run(self, token_ids: Tensor, cache: Cache) -> tuple[Tensor, Tensor | None]:
        """Reads tokens after those in `cache`, which grows by them.

        Args:
            token_ids: `[batch, seq]`, int64, on the model's device.

        Returns:
            States after the final norm `[batch, seq, hidden]` in the model's dtype, and the logits
            `[batch, seq, vocabulary]` where the model had to compute them itself (else None). Give both to
            `logits`, cut alike.
        """
        if self._whole:
            output = self.model(input_ids=token_ids, past_key_values=cache, use_cache=True)
            states, self._caught = self._caught, None
            return states, output.logits
        states = self._base(input_ids=token_ids, past_key_values=cache, use_cache=True).last_hidden_state
        return states, None

    def logits(self, states: Tensor, own: Tensor | None) -> Tensor:
        """Raw logits, float32, `[..., vocabulary]`, of states `[..., hidden]`."""
        raw = self._head(states) if own is None else own
        return raw.float()

    @property
    def computes_logits(self) -> bool:
        """Whether `run` returns logits of its own."""
        return self._whole

    def tokens(self, token_ids: list[int]) -> Tensor:
        """`[1, seq]` on the model's device."""
        return torch.tensor([token_ids], device=self.device)

    def _check(self) -> None:
        ids = self.tokens([i % self.vocabulary_size for i in range(1, _CHECK_TOKENS + 1)])
        expected = self.model(input_ids=ids, use_cache=False).logits.float()
        whole = self._base(input_ids=ids, use_cache=False).last_hidden_state
        self.vocabulary_size = expected.shape[-1]
        if not self._head_alone_gives(whole, expected):
            self._whole = True
            self._base.register_forward_hook(self._catch)
        try:
            cache = self.new_cache()
            first, _ = self.run(ids[:, :_CHECK_CUT], cache)
            second, _ = self.run(ids[:, _CHECK_CUT:], cache)
        except Exception as error:
            raise ModelError(
                f"this kind of model cannot be run piece by piece: {first_line(error)}"
            ) from error
        both = torch.cat((first, second), dim=1).float()
        limit = _SAME_STATES.get(whole.dtype, 1e-2) * max(1.0, float(whole.abs().max()))
        if both.shape != whole.shape or float((both - whole.float()).abs().max()) > limit:
            raise ModelError("this kind of model gives other states from its cache than in one pass")

    def _head_alone_gives(self, states: Tensor, expected: Tensor) -> bool:
        if self._head is None:
            return False
        logits = self._head(states).float()
        if logits.shape != expected.shape:
            return False
        return float((logits - expected).abs().max()) <= _SAME_LOGITS * float(expected.abs().max())

    def _catch(self, _module: Any, _arguments: Any, output: Any) -> None:
        self._caught = output.last_hidden_state
