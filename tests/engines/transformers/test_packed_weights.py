"""Packed weights give the same numbers, or are not used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, Qwen2Config

from semanticspec.engines.transformers import packed_weights
from semanticspec.engines.transformers.mapped_files import MappedFiles
from semanticspec.engines.transformers.packed_weights import PackedLinear, pack_weights

IDS = torch.arange(40).view(2, 20)


def tiny(dtype: torch.dtype) -> torch.nn.Module:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=101, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    assert isinstance(model, torch.nn.Module)
    return model


def packed(model: torch.nn.Module) -> int:
    return sum(isinstance(module, PackedLinear) for module in model.modules())


@torch.inference_mode()
@pytest.mark.parametrize("rows", [1, 2, 20])
def test_packed_weights_give_the_same_numbers(rows: int) -> None:
    model = tiny(torch.bfloat16)
    before = model(IDS[:, :rows]).logits
    count = pack_weights(model)
    if not count:
        pytest.skip("this build of torch has no packed weights")
    assert count == packed(model) == 2 * 7 + 1
    torch.testing.assert_close(model(IDS[:, :rows]).logits, before)
    assert torch.equal(
        model.get_input_embeddings().weight, tiny(torch.bfloat16).get_input_embeddings().weight
    )


def test_other_dtypes_are_not_packed() -> None:
    model = tiny(torch.float32)
    assert pack_weights(model) == packed(model) == 0


@pytest.mark.parametrize("mistake", ["other numbers", "no operator"])
def test_nothing_is_packed_if_torch_does_not_support_it(
    mistake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(self: PackedLinear, states: torch.Tensor) -> torch.Tensor:
        if mistake == "no operator":
            raise AttributeError("no such operator")
        return states[..., :1].expand(*states.shape[:-1], self.weight.shape[0])

    monkeypatch.setattr(packed_weights.PackedLinear, "forward", forward)
    model = tiny(torch.bfloat16)
    assert pack_weights(model) == packed(model) == 0


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells which files are mapped")
def test_packed_weights_do_not_stay_in_memory_twice(tmp_path: Path) -> None:
    """All weights of a file share one mapping, which the embedding keeps alive."""
    tiny(torch.bfloat16).save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto").eval()
    dropped: list[torch.Size] = []
    drop_pages = MappedFiles.drop_pages

    def recorded(self: MappedFiles, tensor: torch.Tensor) -> bool:
        done = drop_pages(self, tensor)
        dropped.append(tensor.shape)
        return done

    expected = model(IDS).logits.detach()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MappedFiles, "drop_pages", recorded)
        count = pack_weights(model)
    if not count:
        pytest.skip("this build of torch has no packed weights")
    assert len(dropped) == count - 1  # the head is tied to the embedding, which is still read
    torch.testing.assert_close(model(IDS).logits, expected)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells which files are mapped")
def test_pages_of_a_mapped_file_are_dropped_and_can_be_read_again(tmp_path: Path) -> None:
    values = torch.arange(2**16)
    save_file({"values": values}, tmp_path / "values.safetensors")
    with safe_open(tmp_path / "values.safetensors", framework="pt") as file:
        mapped = file.get_tensor("values")
    assert torch.equal(mapped, values)
    assert MappedFiles().drop_pages(mapped)
    assert torch.equal(mapped, values)
    assert not MappedFiles().drop_pages(values), "no file backs it, so its content would be lost"
    assert torch.equal(values, torch.arange(2**16))
