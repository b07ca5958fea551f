"""A causal LM of transformers seen as two functions: tokens to states, and states to logits."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from semanticspec.engines.base import LAST_LAYER, StateSpec
from semanticspec.engines.transformers.kv_cache import GrowingLayer
from semanticspec.errors import ModelError, first_line

# Short, and cut at 3 to compare a pass in two pieces over the cache with a pass in one.
_CHECK_TOKENS = 7
_CHECK_CUT = 3
# Same operations on the same numbers: anything above rounding means the model does more than base and head.
_SAME_LOGITS = 1e-3
# Another order of summation, in half precision too; a cache that is not used properly is off by far more.
_SAME_STATES = {torch.float32: 1e-2, torch.float16: 5e-2, torch.bfloat16: 2e-1}


@functools.cache
def cache_argument(forward: Callable[..., Any]) -> str:
    """The name under which a model's `forward` takes its cache: `cache` since transformers 5.24."""
    return "cache" if "cache" in inspect.signature(forward).parameters else "past_key_values"


class Network:
    """Runs the base model without its head, so that logits are computed only where they are needed.

    Some models scale or cap their logits outside the head. For those the whole model runs, and the base
    model's state is caught by a hook on the way; as is an inner layer's, whichever of the two runs.

    Attributes:
        model: the causal LM as transformers loaded it.
        states: which states `run` gives, and how readings pool them.
        masks: whether rows of unlike length can be run together, see `run`.
        reusable: whether the cache of this model can be cut back to any length. False for sliding windows and
            recurrent states; then every call computes its context from cold.
    """

    def __init__(self, model: Any, states: StateSpec = StateSpec()) -> None:  # noqa: B008
        """Checks that the model's parts behave as this class needs, on a few tokens.

        Raises:
            ConfigError: the model has no such layer.
            ModelError: the model cannot continue from a cache, or its layers cannot be found.
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
        states.check(self.num_layers)
        self.states = states
        self._whole = False
        groups = int(text_config.num_attention_heads) // int(
            getattr(text_config, "num_key_value_heads", None) or text_config.num_attention_heads
        )
        # Given a mask, transformers computes the attention of a single token for a whole group of heads at once, which
        # takes a CPU a quarter of the time it needs otherwise; given none, it leaves the groups to torch.
        self._always_masks = self.device.type == "cpu" and groups > 1
        self.masks = False
        with torch.inference_mode():
            self._check()

    def new_cache(self) -> Cache:
        """An empty cache: ours where the model's layers allow it, else the kind transformers makes for it."""
        if self.reusable:
            return Cache(layers=[GrowingLayer() for _ in range(self.num_layers)])
        return DynamicCache(config=self.model.config)

    def run(
        self, token_ids: Tensor, cache: Cache, empty_places: Sequence[int] = ()
    ) -> tuple[Tensor, Tensor | None]:
        """Reads tokens after those in `cache`, which grows by them.

        Args:
            token_ids: `[batch, seq]`, int64, on the model's device; seq = 1 with `empty_places`.
            empty_places: how many of the first places in the cache hold nothing, for every row; none = all are
                filled in all rows. For networks with `masks`.

        Returns:
            The layer's states `[batch, seq, hidden]` in the model's dtype, and what the logits are made of where
            that is not these states (else None): the logits `[batch, seq, vocabulary]` if the model has to
            compute them itself, or the states after the final norm. Give both to `logits`, cut alike.
        """
        runs = self.model if self._whole else self._base
        options: dict[str, Any] = (
            self._seen(cache, empty_places) if self.masks and token_ids.shape[1] == 1 else {}
        )
        options[cache_argument(type(runs).forward)] = cache
        output = runs(input_ids=token_ids, use_cache=True, **options)
        own = output.logits if self._whole else output.last_hidden_state
        if not self._catches:
            return own, None
        states, self._caught = self._caught, None
        return states, own

    def logits(self, states: Tensor, own: Tensor | None) -> Tensor:
        """Raw logits, float32, `[..., vocabulary]`, of states `[..., hidden]`."""
        sources = states if own is None else own
        raw = sources if self._whole else self._head(sources)
        return raw.float()

    @property
    def computes_logits(self) -> bool:
        """Whether what `run` returns beside the states are logits."""
        return self._whole

    def tokens(self, token_ids: list[int]) -> Tensor:
        """`[1, seq]` on the model's device."""
        return torch.tensor([token_ids], device=self.device)

    def _seen(self, cache: Cache, empty_places: Sequence[int]) -> dict[str, Tensor]:
        """Which places of the cache the next token of each row sees, and its position, where that is not plain."""
        length = cache.get_seq_length()
        if any(empty_places):
            empty = torch.tensor(empty_places, device=self.device)[:, None]
            mask = torch.arange(length + 1, device=self.device) >= empty
            return {"attention_mask": mask[:, None, None], "position_ids": length - empty}
        if self._always_masks:
            return {"attention_mask": torch.ones(1, 1, 1, length + 1, dtype=torch.bool)}
        return {}

    @property
    def _catches(self) -> bool:
        """Whether a hook catches the states on the way."""
        return self._whole or self.states.layer != LAST_LAYER

    def _check(self) -> None:
        ids = self.tokens([i % self.vocabulary_size for i in range(1, _CHECK_TOKENS + 1)])
        expected = self.model(input_ids=ids, use_cache=False).logits.float()
        whole = self._base(input_ids=ids, use_cache=False).last_hidden_state
        self.vocabulary_size = expected.shape[-1]
        self._whole = not self._head_alone_gives(whole, expected)
        if self._catches:
            last = self.states.layer == LAST_LAYER
            caught_from = self._base if last else self._decoder_layers()[self.states.layer - 1]
            caught_from.register_forward_hook(self._catch)
            self._base(input_ids=ids, use_cache=False)
            whole = self._caught
        try:
            cache = self.new_cache()
            first, _ = self.run(ids[:, :_CHECK_CUT], cache)
            second, _ = self.run(ids[:, _CHECK_CUT:], cache)
        except Exception as error:
            raise ModelError(
                f"this kind of model cannot be run piece by piece: {first_line(error)}"
            ) from error
        if not _same(torch.cat((first, second), dim=1), whole):
            raise ModelError("this kind of model gives other states from its cache than in one pass")
        self.masks = self.reusable and self._can_mask(ids, whole)

    def _can_mask(self, ids: Tensor, expected: Tensor) -> bool:
        """Whether a row beside a longer one gives the states `expected[0, i]` that come after token i."""
        self.masks = True  # asked for by the passes below
        try:
            long, short = self.new_cache(), self.new_cache()
            self.run(ids[:, :-1], long)
            self.run(ids[:, :_CHECK_CUT], short)
            alone, _ = self.run(
                ids[:, -1:], Cache(layers=[layer.copied(len(ids[0]) - 1) for layer in long.layers])
            )
            for layer, added in zip(long.layers, short.layers, strict=True):
                layer.join(added)
            empty = [0, len(ids[0]) - 1 - _CHECK_CUT]
            together, _ = self.run(torch.cat((ids[:, -1:], ids[:, _CHECK_CUT : _CHECK_CUT + 1])), long, empty)
        except Exception:  # it takes no such mask, or no positions; it is then run without
            return False
        wanted = torch.stack((expected[0, -1:], expected[0, _CHECK_CUT : _CHECK_CUT + 1]))
        return _same(together, wanted) and _same(alone, wanted[:1])

    def _head_alone_gives(self, states: Tensor, expected: Tensor) -> bool:
        if self._head is None:
            return False
        logits = self._head(states).float()
        if logits.shape != expected.shape:
            return False
        return float((logits - expected).abs().max()) <= _SAME_LOGITS * float(expected.abs().max())

    def _decoder_layers(self) -> nn.ModuleList:
        """The list of the model's layers: the outermost one of the right length."""
        for module in self._base.modules():
            if isinstance(module, nn.ModuleList) and len(module) == self.num_layers:
                return module
        raise ModelError(
            f"the {self.num_layers} layers of this kind of model cannot be found; use its last layer (layer -1)"
        )

    def _catch(self, _module: Any, _arguments: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            output = output.last_hidden_state if hasattr(output, "last_hidden_state") else output[0]
        self._caught = output


def _same(states: Tensor, expected: Tensor) -> bool:
    """Whether states are equal but for rounding."""
    limit = _SAME_STATES.get(expected.dtype, 1e-2) * max(1.0, float(expected.abs().max()))
    return states.shape == expected.shape and float((states.float() - expected.float()).abs().max()) <= limit
