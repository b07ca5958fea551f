"""GGUF files: whether one is there, and writing a Llama of transformers as llama.cpp's converter does.

A written file also holds the whole `tokenizer.json`, under the name that the GGUF specification has for it, so that who
reads the file needs to reconstruct nothing: llama.cpp's own description of a tokenizer has no place for the way in
which a text is split before merging.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semanticspec.errors import EngineError, ModelError

if TYPE_CHECKING:
    from torch import Tensor

_HF_TOKENIZER = "tokenizer.huggingface.json"
_MAGIC = b"GGUF"
# What a file says of itself is in its head; the rest only counts by its size.
_HEAD_BYTES = 2**16
# Where all that a file says of itself ends at the latest, tokens and merges of the largest vocabularies included.
_DESCRIPTION_BYTES = 2**26
# The weights of a layer as transformers names them, and as GGUF files do.
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
_BYTE_PAIR, _NO_TOKENIZER = "gpt2", "none"


def check_gguf(model: str) -> str:
    """A digest that tells files apart without reading gigabytes.

    Raises:
        ModelError: there is no such file, or it is no GGUF file.
    """
    path = Path(model).expanduser()
    if not path.is_file():
        raise ModelError(f"there is no file {path}; expected a GGUF file")
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head.startswith(_MAGIC):
        raise ModelError(f"{path} is no GGUF file: it does not start with GGUF")
    return hashlib.sha256(head + f"{path.name}:{path.stat().st_size}".encode()).hexdigest()[:16]


def tokenizer_in(path: Path) -> Any | None:
    """The tokenizer whose `tokenizer.json` a file holds whole, as a fast one of transformers; None where it does not.

    Raises:
        EngineError: the package gguf is missing.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(_HF_TOKENIZER.encode(), 0, _DESCRIPTION_BYTES) < 0:
            return None
    reader = _gguf_package().GGUFReader(path)

    def value(key: str) -> Any:
        return reader.fields[key].contents() if key in reader.fields else None

    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer.from_str(value(_HF_TOKENIZER))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False)
    tokenizer.eos_token = backend.id_to_token(value("tokenizer.ggml.eos_token_id"))
    tokenizer.chat_template = value("tokenizer.chat_template")
    return tokenizer


def write_gguf(folder: Path, path: Path) -> None:
    """Writes a folder's model in float32, with its tokenizer where the folder has one.

    Args:
        folder: a Llama with plain rotary embeddings, as transformers saves it; a tokenizer must be byte-level BPE.
        path: of the file, which is replaced.

    Raises:
        ModelError: the model is of another kind.
        EngineError: the package gguf is missing.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from semanticspec.output.quiet import quiet

    with quiet():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if model.config.model_type != "llama" or model.config.rope_parameters["rope_type"] != "default":
        raise ModelError(f"{folder} is no Llama with plain rotary embeddings; use llama.cpp's own converter")
    writer = _gguf_package().GGUFWriter(path, "llama")
    _add_shape(writer, model.config)
    _add_tokenizer(writer, folder, model.config.vocab_size)
    for key, weight in model.state_dict().items():
        name, weight = _renamed(key, weight, model.config)
        if key != "lm_head.weight" or not model.config.tie_word_embeddings:
            writer.add_tensor(name, weight.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _gguf_package() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise EngineError("GGUF files need the package gguf: pip install semanticspec[gguf]") from error
    return gguf


def _add_shape(writer: Any, config: Any) -> None:
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
    """Adds the tokenizer in llama.cpp's terms, and as transformers' own file."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        writer.add_tokenizer_model(_NO_TOKENIZER)
        return
    from transformers import PreTrainedTokenizerFast

    kind = _gguf_package().TokenType
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    text = file.read_text(encoding="utf-8")
    texts = {i: text for text, i in tokenizer.get_vocab().items()}
    kinds = [kind.NORMAL if i in texts else kind.UNUSED for i in range(vocabulary_size)]
    for i, token in tokenizer.added_tokens_decoder.items():
        kinds[i] = kind.CONTROL if token.special else kind.USER_DEFINED
    writer.add_tokenizer_model(_BYTE_PAIR)
    writer.add_tokenizer_pre("default")
    writer.add_token_list([texts.get(i, f"[unused{i}]") for i in range(vocabulary_size)])
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in json.loads(text)["model"]["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)
    writer.add_string(_HF_TOKENIZER, text)


def _renamed(key: str, weight: Tensor, config: Any) -> tuple[str, Tensor]:
    """A weight under its name in GGUF files, and in their order of rows."""
    name = key.removesuffix(".weight")
    if not name.startswith("model.layers."):
        return f"{_OTHER_NAMES[name]}.weight", weight
    _, _, layer, part = name.split(".", 3)
    heads = {"self_attn.q_proj": config.num_attention_heads, "self_attn.k_proj": config.num_key_value_heads}
    if part in heads:
        weight = _interleaved(weight, heads[part])
    return f"blk.{layer}.{_LAYER_NAMES[part]}.weight", weight


def _interleaved(weight: Tensor, heads: int) -> Tensor:
    """GGUF files hold the two halves that rotary embeddings pair up as neighbours, not one after the other."""
    rows, columns = weight.shape
    halves = weight.view(heads, 2, rows // heads // 2, columns)
    return halves.transpose(1, 2).reshape(rows, columns).contiguous()
