"""Forward passes of a transformers model: token ids to hidden states, and hidden states to logits."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from semanticspec.engines.base import LAST_LAYER, StateSpec
from semanticspec.engines.runtime.prefix_cache import PositionOutput
from semanticspec.engines.transformers.kv_cache import GrowingLayer
from semanticspec.errors import ModelError, first_line

# Self-test on this many tokens: one pass is compared with two passes over the cache, divided here.
_TEST_TOKENS = 7
_TEST_SPLIT = 3
# Relative tolerance for the same operations on the same numbers. More means that logits are not just the head's output.
_LOGITS_TOLERANCE = 1e-3
# For another order of summation; a KV cache that is not used properly is off by far more.
_STATES_TOLERANCE = {torch.float32: 1e-2, torch.float16: 5e-2, torch.bfloat16: 2e-1}


@dataclass(frozen=True, slots=True)
class ForwardOutput:
    """Output of a forward pass.

    Attributes:
        states: hidden states of the selected layer, `[..., hidden]`, in the model's dtype.
        logit_source: what `ModelRunner.logits` computes the logits from, if that is not `states`: the states after the
            final norm `[..., hidden]`, or the logits `[..., vocabulary]` of models that scale them outside the head.
    """

    states: Tensor
    logit_source: Tensor | None = None

    def __getitem__(self, index: Any) -> ForwardOutput:
        source = self.logit_source
        return ForwardOutput(self.states[index], None if source is None else source[index])

    @classmethod
    def at(cls, output: PositionOutput) -> ForwardOutput:
        """Returns a cached output as a forward output of one position."""
        return cls(output.state, output.logit_source)[None]

    @classmethod
    def cat(cls, outputs: Sequence[ForwardOutput]) -> ForwardOutput:
        """Concatenates outputs along their first dimension."""
        sources = [output.logit_source for output in outputs if output.logit_source is not None]
        return cls(torch.cat([output.states for output in outputs]), torch.cat(sources) if sources else None)


@functools.cache
def cache_argument(forward: Callable[..., Any]) -> str:
    """Returns the name of a forward method's KV cache argument: `cache` since transformers 5.24."""
    return "cache" if "cache" in inspect.signature(forward).parameters else "past_key_values"


class ModelRunner:
    """Runs the base model without its head, so that logits are computed only where they are needed.

    For models that scale or cap their logits outside the head, the whole model runs. A forward hook then captures the
    hidden states, as it does for inner layers.

    Attributes:
        model: the transformers model.
        state_spec: which hidden states `forward` returns.
        computes_logits: the whole model runs, and `ForwardOutput.logit_source` holds logits.
        supports_padding: rows of different lengths can run together, see `forward`.
        reusable_cache: the KV cache can be cropped to any length. False for recurrent states; every call then prefills
            its whole context.
    """

    def __init__(self, model: Any, state_spec: StateSpec = StateSpec()) -> None:  # noqa: B008
        """Wraps a model, and tests on a few tokens that it behaves as needed.

        Raises:
            ConfigError: The model has no such layer.
            ModelError: The model cannot continue from a KV cache, or its layers cannot be found.
        """
        config = model.config.get_text_config(decoder=True)
        self.model = model
        self.state_spec = state_spec
        self.device = next(model.parameters()).device
        self.hidden_size = int(config.hidden_size)
        self.num_layers = int(config.num_hidden_layers)
        self.vocabulary_size = int(config.vocab_size)
        layers = DynamicCache(config=model.config).layers
        self.reusable_cache = all(
            type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in layers
        )
        self._windows: list[int | None] = [getattr(layer, "sliding_window", None) for layer in layers]
        self._windows = self._windows or [None] * self.num_layers
        self.computes_logits = self.supports_padding = False
        state_spec.check(self.num_layers)
        # Some classes do not name their base model, such as Llama 4's; `base_model` is then the model itself.
        self._base = model.base_model if model.base_model is not model else model.model
        self._head = model.get_output_embeddings()
        self._captured: Any = None
        num_heads = int(config.num_attention_heads)
        num_kv_heads = int(getattr(config, "num_key_value_heads", None) or num_heads)
        # With a mask, transformers computes single-token attention for a whole group of heads at once, in a quarter of
        # the CPU time that torch takes for the groups otherwise.
        self._always_masks = self.device.type == "cpu" and num_heads > num_kv_heads and not any(self._windows)
        with torch.inference_mode():
            self._self_test()

    def new_cache(self) -> Cache:
        """Returns an empty KV cache: our own where the model's layers allow it, else the model's default."""
        if self.reusable_cache:
            return Cache(layers=[GrowingLayer(window) for window in self._windows])
        return DynamicCache(config=self.model.config)

    def forward(self, token_ids: Tensor, cache: Cache, padding: Sequence[int] = ()) -> ForwardOutput:
        """Runs the model on tokens that follow those in the KV cache, and appends them to it.

        Args:
            token_ids: `[batch, seq]`, int64, on the model's device; seq = 1 with `padding`.
            cache: the KV cache.
            padding: number of left padding positions of each row in the cache; empty = no row is padded. Requires
                `supports_padding`.

        Returns:
            Output for `[batch, seq]`. Use `logits` to compute logits for parts of it.
        """
        module = self.model if self.computes_logits else self._base
        options: dict[str, Any] = {}
        if self.supports_padding and token_ids.shape[1] == 1:
            options = self._attention_options(cache, padding)
        options[cache_argument(type(module).forward)] = cache
        output = module(input_ids=token_ids, use_cache=True, **options)
        result: Tensor = output.logits if self.computes_logits else output.last_hidden_state
        if not self._captures_states:
            return ForwardOutput(result)
        states, self._captured = self._captured, None
        return ForwardOutput(states, result)

    def logits(self, output: ForwardOutput) -> Tensor:
        """Returns raw logits `[..., vocabulary]`, in the model's dtype."""
        source = output.states if output.logit_source is None else output.logit_source
        raw: Tensor = source if self.computes_logits else self._head(source)
        return raw

    def position_output(self, output: ForwardOutput, logits: Tensor, index: int) -> PositionOutput:
        """Copies one position of `output` and `logits`, so that the rest can be freed.

        The two may differ in length, as long as the index means the same position in both.
        """
        source = output.logit_source
        row = logits[index].to(torch.float32, copy=True)
        if source is not None:
            source = row if self.computes_logits else source[index].clone()
        return PositionOutput(output.states[index].clone(), row, source)

    def tokens(self, token_ids: list[int]) -> Tensor:
        """Returns token ids as `[1, seq]` on the model's device."""
        return torch.tensor([token_ids], device=self.device)

    @property
    def _captures_states(self) -> bool:
        """Whether a forward hook captures the hidden states."""
        return self.computes_logits or self.state_spec.layer != LAST_LAYER

    def _attention_options(self, cache: Cache, padding: Sequence[int]) -> dict[str, Tensor]:
        """Returns attention mask and position ids for one token per row, where the defaults do not apply."""
        length = cache.get_seq_length()
        if any(padding):
            num_padding = torch.tensor(padding, device=self.device)[:, None]
            mask = torch.arange(length + 1, device=self.device) >= num_padding
            if not any(
                self._windows
            ):  # such a mask is used as it is; with windows, transformers adds them to it
                mask = mask[:, None, None]
            return {"attention_mask": mask, "position_ids": length - num_padding}
        if self._always_masks:
            return {"attention_mask": torch.ones(1, 1, 1, length + 1, dtype=torch.bool)}
        return {}

    def _self_test(self) -> None:
        """Sets `computes_logits` and `supports_padding`, and raises ModelError if the KV cache does not work."""
        ids = self.tokens([i % self.vocabulary_size for i in range(1, _TEST_TOKENS + 1)])
        expected_logits = self.model(input_ids=ids, use_cache=False).logits.float()
        states = self._base(input_ids=ids, use_cache=False).last_hidden_state
        self.vocabulary_size = expected_logits.shape[-1]
        self.computes_logits = not self._head_gives(states, expected_logits)
        if self._captures_states:
            last = self.state_spec.layer == LAST_LAYER
            module = self._base if last else self._decoder_layers()[self.state_spec.layer - 1]
            module.register_forward_hook(self._capture)
            self._base(input_ids=ids, use_cache=False)
            states = self._captured
        try:
            cache = self.new_cache()
            first = self.forward(ids[:, :_TEST_SPLIT], cache).states
            second = self.forward(ids[:, _TEST_SPLIT:], cache).states
        except Exception as error:
            raise ModelError(f"this model cannot continue from a KV cache: {first_line(error)}") from error
        if not _nearly_equal(torch.cat((first, second), dim=1), states):
            raise ModelError("this model gives different states with a KV cache than without")
        self.supports_padding = self.reusable_cache and self._padding_works(ids, states)

    def _padding_works(self, ids: Tensor, expected: Tensor) -> bool:
        """Returns whether a row beside a longer one gives its expected states `[1, seq, hidden]`."""
        end = ids.shape[1] - 1
        self.supports_padding = True  # for the passes below
        try:
            long, short = self.new_cache(), self.new_cache()
            self.forward(ids[:, :end], long)
            self.forward(ids[:, :_TEST_SPLIT], short)
            copy = Cache(layers=[layer.copied(end) for layer in long.layers])
            alone = self.forward(ids[:, end:], copy).states
            for layer, added in zip(long.layers, short.layers, strict=True):
                layer.join(added)
            next_ids = torch.cat((ids[:, end:], ids[:, _TEST_SPLIT : _TEST_SPLIT + 1]))
            together = self.forward(next_ids, long, [0, end - _TEST_SPLIT]).states
        except Exception:  # the model takes no such mask or no position ids; it then runs without padding
            return False
        wanted = torch.stack((expected[0, end:], expected[0, _TEST_SPLIT : _TEST_SPLIT + 1]))
        return _nearly_equal(together, wanted) and _nearly_equal(alone, wanted[:1])

    def _head_gives(self, states: Tensor, expected: Tensor) -> bool:
        """Returns whether the head alone computes the expected logits."""
        if self._head is None:
            return False
        logits = self._head(states).float()
        if logits.shape != expected.shape:
            return False
        finite = expected.isfinite()  # a cut head's other logits are minus infinity
        if not torch.equal(logits.isfinite(), finite):
            return False
        difference = (logits[finite] - expected[finite]).abs().max()
        return float(difference) <= _LOGITS_TOLERANCE * float(expected[finite].abs().max())

    def _decoder_layers(self) -> nn.ModuleList:
        """Returns the model's decoder layers: the outermost module list of the right length."""
        for module in self._base.modules():
            if isinstance(module, nn.ModuleList) and len(module) == self.num_layers:
                return module
        raise ModelError(f"cannot find the {self.num_layers} decoder layers of this model; use layer -1")

    def _capture(self, _module: Any, _arguments: Any, output: Any) -> None:
        """Forward hook that stores a layer's hidden states."""
        if not isinstance(output, Tensor):
            output = output.last_hidden_state if hasattr(output, "last_hidden_state") else output[0]
        self._captured = output


def _nearly_equal(states: Tensor, expected: Tensor) -> bool:
    limit = _STATES_TOLERANCE.get(expected.dtype, 1e-2) * max(1.0, float(expected.abs().max()))
    return states.shape == expected.shape and float((states.float() - expected.float()).abs().max()) <= limit
