"""Loading models and pairs by name."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Lfm2Config, LlamaConfig, PreTrainedConfig, Qwen2Config

from semanticspec import DecodingConfig, load_pair
from semanticspec.config import OPTIMIZATIONS
from semanticspec.probes import Probe
from tests.support.tiny_models import SIZES
from tests.support.vocabularies import make_vocabulary

TEMPLATE = "{{ messages[0].content }}"
RECURRENT = {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False}


def save(folder: Path, config: PreTrainedConfig, template: str | None = TEMPLATE) -> str:
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    make_vocabulary(template=template).tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("recurrent", ["target", "draft"])
async def test_a_model_that_prefills_everything_in_every_call_is_said_at_start(
    tmp_path: Path, recurrent: str
) -> None:
    other = save(tmp_path / "other", LlamaConfig(**SIZES))
    folder = save(tmp_path / "recurrent", Lfm2Config(**SIZES, **RECURRENT))
    names = {"target": other, "draft": other} | {recurrent: folder}
    with pytest.warns(UserWarning, match=r"recurrent has a recurrent state, .* prefills its whole context"):
        pair = load_pair(**names)
    decoding = pair.resolve(DecodingConfig())
    assert decoding.partial_acceptance
    assert decoding.num_speculative_tokens == 0
    await pair.aclose()


async def test_other_models_load_without_a_warning(tmp_path: Path) -> None:
    window = {"sliding_window": 8, "use_sliding_window": True, "max_window_layers": 1}
    other = save(tmp_path / "other", LlamaConfig(**SIZES))
    sliding = save(tmp_path / "sliding", Qwen2Config(**SIZES, **window))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pair = load_pair(other, sliding)
    decoding = pair.resolve(DecodingConfig())
    assert decoding.num_speculative_tokens == OPTIMIZATIONS["token-speculation"]["num_speculative_tokens"]
    await pair.aclose()


async def test_a_model_without_a_chat_template_is_said_once_at_start(tmp_path: Path) -> None:
    folder = save(tmp_path / "base", LlamaConfig(**SIZES), template=None)
    with pytest.warns(
        UserWarning, match=r"base has no chat template, so it gets prompts as they are"
    ) as caught:
        pair = load_pair(folder, folder)
    assert len(caught) == 1
    await pair.aclose()


async def test_a_probe_of_other_weights_is_said_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Probe, "check", lambda *_: ["the probe was trained with other weights"])
    with pytest.warns(UserWarning, match="trained with other weights"):
        pair = load_pair()
    await pair.aclose()
