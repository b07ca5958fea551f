"""A GGUF file gives the model that it was made of."""

from __future__ import annotations

from pathlib import Path

import gguf
import torch
from subjects import CONTEXT_TOKENS, VOCABULARY, Subject, load
from torch import Tensor
from transformers import AutoModelForCausalLM

from semanticspec.records import Sampling, Stop

# The weights of a Llama's layer as transformers names them, and as GGUF files do.
LAYER_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
OTHER_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


async def test_writes_what_its_folder_writes(
    llama: Subject, model_folders: dict[str, Path], tmp_path: Path
) -> None:
    write_gguf(model_folders["llama"], tmp_path / "llama.gguf")
    engine = load(tmp_path / "llama.gguf")
    context, sampling = [3, 14, 15, 9, 26, 5], Sampling(0.8, 0.9)
    assert engine.info.max_context_tokens == CONTEXT_TOKENS
    (generation,) = await engine.generate(
        context, max_tokens=20, stop=Stop(), sampling=sampling, seed=3, request_id="gguf"
    )
    assert generation.token_ids == llama.continuation(context, 20, sampling, seed=3)
    (score,) = await engine.score(context, [generation.token_ids])
    torch.testing.assert_close(torch.tensor(score.logprobs), torch.tensor(generation.logprobs))
    await engine.aclose()


def write_gguf(folder: Path, path: Path) -> None:
    """Writes a Llama as llama.cpp's converter does, in float32."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(VOCABULARY)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for key, weight in model.state_dict().items():
        name = key.removesuffix(".weight")
        if name.startswith("model.layers."):
            _, _, layer, part = name.split(".", 3)
            name = f"blk.{layer}.{LAYER_NAMES[part]}"
            if LAYER_NAMES[part] in heads:
                weight = interleaved(weight, heads[LAYER_NAMES[part]])
        else:
            name = OTHER_NAMES[name]
        writer.add_tensor(f"{name}.weight", weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def interleaved(weight: Tensor, heads: int) -> Tensor:
    """GGUF files hold the two halves that rotary embeddings pair up as neighbours, not one after the other."""
    rows, columns = weight.shape
    return (
        weight.view(heads, 2, rows // heads // 2, columns).transpose(1, 2).reshape(rows, columns).contiguous()
    )
