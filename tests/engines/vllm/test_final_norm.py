"""The final norm is loaded without the rest of the model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import Gemma2Config, GPT2Config, LlamaConfig, PreTrainedConfig

from semanticspec.engines.transformers.loading import find_model
from semanticspec.engines.vllm.final_norm import load_final_norm
from semanticspec.errors import ModelError
from tests.support.tiny_models import SIZES, save_model


@pytest.mark.parametrize("shards", [{}, {"max_shard_size": "4KB"}], ids=["one file", "several"])
def test_the_final_norm_is_loaded(shards: dict[str, str], tmp_path: Path) -> None:
    model = save_model(tmp_path, LlamaConfig(**SIZES, rms_norm_eps=1e-3), **shards)
    norm = load_final_norm(find_model(str(tmp_path)))
    states = torch.randn(5, 16)
    ours = (states * torch.rsqrt(states.square().mean(-1, keepdim=True) + norm.epsilon)).mean(0) * norm.weight
    torch.testing.assert_close(ours, model.model.norm(states).mean(0))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Gemma2Config(**SIZES, head_dim=8), "final norm of .* is a Gemma2RMSNorm"),
        (GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2), "final norm of .* is a LayerNorm"),
    ],
    ids=["adds 1 to its weight", "subtracts the mean"],
)
def test_other_norms_are_refused(config: PreTrainedConfig, message: str, tmp_path: Path) -> None:
    save_model(tmp_path, config)
    with pytest.raises(ModelError, match=message):
        load_final_norm(find_model(str(tmp_path)))
