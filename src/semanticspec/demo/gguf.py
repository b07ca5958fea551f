"""Exports the bundled pair as GGUF files for llama.cpp: `python -m semanticspec.demo.gguf FOLDER`.

Each file embeds the whole `tokenizer.json`, since llama.cpp's own tokenizer metadata does not describe the
pre-tokenizer exactly.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semanticspec import demo
from semanticspec.errors import ModelError, SemanticSpecError
from semanticspec.text.gguf_files import HF_TOKENIZER_KEY, import_gguf

if TYPE_CHECKING:
    from torch import Tensor

# Names of weights: transformers -> GGUF.
_LAYER_NAMES = {
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
_OTHER_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def write_pair(folder: Path) -> tuple[Path, Path]:
    """Writes `target.gguf` and `draft.gguf` in float32, with their tokenizers.

    Returns:
        The two paths.

    Raises:
        EngineError: The package gguf is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target, draft = folder / "target.gguf", folder / "draft.gguf"
    write_gguf(demo.target_path(), target)
    write_gguf(demo.draft_path(), draft)
    return target, draft


def write_gguf(folder: Path, path: Path) -> None:
    """Converts a Llama model to a GGUF file in float32, as llama.cpp's converter does.

    Args:
        folder: model in transformers format with plain rotary embeddings. A tokenizer, if there is one, must be
            byte-level BPE.
        path: output file; an existing file is replaced.

    Raises:
        ModelError: The model has another architecture.
        EngineError: The package gguf is not installed.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from semanticspec.output.quiet import quiet

    with quiet():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if model.config.model_type != "llama" or model.config.rope_parameters["rope_type"] != "default":
        raise ModelError(
            f"{folder} is a {model.config.model_type} model; expected a Llama with plain rotary embeddings. "
            "Use llama.cpp's own converter"
        )
    writer = import_gguf().GGUFWriter(path, "llama")
    _add_hyperparameters(writer, model.config)
    _add_tokenizer(writer, folder, model.config.vocab_size)
    for key, weight in model.state_dict().items():
        if key != "lm_head.weight" or not model.config.tie_word_embeddings:
            name, converted = _convert_weight(key, weight, model.config)
            writer.add_tensor(name, converted.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_hyperparameters(writer: Any, config: Any) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(writer: Any, folder: Path, vocabulary_size: int) -> None:
    """Adds the tokenizer twice: as llama.cpp's metadata, and as the original `tokenizer.json`."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        writer.add_tokenizer_model("none")
        return
    from transformers import PreTrainedTokenizerFast

    kind = import_gguf().TokenType
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    content = file.read_text(encoding="utf-8")
    tokens = {i: token for token, i in tokenizer.get_vocab().items()}
    kinds = [kind.NORMAL if i in tokens else kind.UNUSED for i in range(vocabulary_size)]
    for i, token in tokenizer.added_tokens_decoder.items():
        kinds[i] = kind.CONTROL if token.special else kind.USER_DEFINED
    writer.add_tokenizer_model("gpt2")  # llama.cpp's name for byte-level BPE
    writer.add_tokenizer_pre("default")
    writer.add_token_list([tokens.get(i, f"[unused{i}]") for i in range(vocabulary_size)])
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in json.loads(content)["model"]["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)
    writer.add_string(HF_TOKENIZER_KEY, content)


def _convert_weight(key: str, weight: Tensor, config: Any) -> tuple[str, Tensor]:
    """Returns a weight's GGUF name, and the weight with its rows in GGUF order."""
    name = key.removesuffix(".weight")
    if not name.startswith("model.layers."):
        return f"{_OTHER_NAMES[name]}.weight", weight
    _, _, layer, part = name.split(".", 3)
    heads = {"self_attn.q_proj": config.num_attention_heads, "self_attn.k_proj": config.num_key_value_heads}
    if part in heads:
        weight = _interleave_halves(weight, heads[part])
    return f"blk.{layer}.{_LAYER_NAMES[part]}.weight", weight


def _interleave_halves(weight: Tensor, heads: int) -> Tensor:
    """Reorders the rows of each head: GGUF interleaves the two halves that rotary embeddings pair up."""
    rows, columns = weight.shape
    halves = weight.view(heads, 2, rows // heads // 2, columns)
    return halves.transpose(1, 2).reshape(rows, columns).contiguous()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m semanticspec.demo.gguf FOLDER")
    try:
        paths = write_pair(Path(sys.argv[1]))
    except SemanticSpecError as failure:
        raise SystemExit(f"error: {failure}") from None
    print(*paths, sep="\n")
