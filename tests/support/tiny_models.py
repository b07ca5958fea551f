"""Tiny random models, saved in transformers format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def save_model(folder: Path, config: PreTrainedConfig, **options: Any) -> Any:
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        if "norm" in name:  # initialized to ones
            torch.nn.init.normal_(parameter)
    model.save_pretrained(folder, **options)
    return model
