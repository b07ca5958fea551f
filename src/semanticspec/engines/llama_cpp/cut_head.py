"""A GGUF file with a cut head, see `runtime.head_tokens`.

llama.cpp requires a row per token of the vocabulary in both the head and the token embeddings. So the file is rewritten
once for a smaller vocabulary, and the engine looks up the embeddings itself, in the complete table that is stored with
the new file: cut tokens still occur in contexts.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from semanticspec.engines.runtime.head_tokens import HeadTokens
from semanticspec.errors import EngineError, ModelError
from semanticspec.output.conversion_cache import cache_folder, keep_conversion, kept_conversion
from semanticspec.text.gguf_files import conversion_key, import_gguf

_MODEL_FILE, _EMBEDDINGS_FILE = "model.gguf", "embeddings.npy"
_EMBEDDINGS, _HEAD, _HEAD_BIAS = "token_embd.weight", "output.weight", "output.bias"
_CACHED_ROWS = 4096

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class CutModel:
    """A rewritten file.

    Attributes:
        path: file for llama.cpp, whose token i is `tokens.ids[i]`.
        tokens: the tokens that the head keeps.
        embeddings: of all tokens of the original file.
    """

    path: Path
    tokens: HeadTokens
    embeddings: EmbeddingTable


class EmbeddingTable:
    """Token embeddings as stored in a GGUF file, on disk. Rows are dequantized when they are needed."""

    def __init__(self, path: Path, kind: int) -> None:
        self._rows = np.load(path, mmap_mode="r")
        gguf = import_gguf()
        self._dequantize = gguf.quants.dequantize
        self._kind = gguf.GGMLQuantizationType(kind)
        self._row = functools.lru_cache(_CACHED_ROWS)(self._read_row)

    def rows(self, token_ids: Sequence[int]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Returns the embeddings of tokens, `[tokens, hidden]`."""
        return np.stack([self._row(token_id) for token_id in token_ids])

    def _read_row(self, token_id: int) -> Any:
        row = np.array(self._rows[token_id : token_id + 1])
        return self._dequantize(row, self._kind)[0].astype(np.float32, copy=False)


def cut_model(model: str, head_tokens: str) -> CutModel:
    """Rewrites a GGUF file with a cut head, once per file and set of tokens; the result is kept.

    Raises:
        ConfigError: The tokens do not fit the model.
        ModelError: The file has no table of token embeddings.
        EngineError: The package gguf is missing, or the result cannot be written.
    """
    path = Path(model).expanduser()
    reader = import_gguf().GGUFReader(path)
    table = next((tensor for tensor in reader.tensors if tensor.name == _EMBEDDINGS), None)
    if table is None:
        raise ModelError(f"{model} has no tensor {_EMBEDDINGS}; its head cannot be cut; omit head_tokens")
    tokens = HeadTokens.read(head_tokens, len(table.data))
    name = f"gguf/{conversion_key(path)}-head-{tokens.digest}"
    if kept_conversion(name) is None:
        _logger.warning("writing %s with a cut head; this happens once per file", path.name)
        keep_conversion(name, lambda folder: _write(reader, tokens, folder))
    folder = kept_conversion(name)
    if folder is None:
        raise EngineError(
            f"cannot write the model with a cut head to {cache_folder() / name}; free space, or omit head_tokens"
        )
    return CutModel(
        folder / _MODEL_FILE, tokens, EmbeddingTable(folder / _EMBEDDINGS_FILE, int(table.tensor_type))
    )


def _write(reader: Any, tokens: HeadTokens, folder: Path) -> None:
    """Writes the model without its tokenizer and without the rows of other tokens, and the complete embeddings."""
    gguf = import_gguf()
    architecture = reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(folder / _MODEL_FILE, architecture)
    size_key = f"{architecture}.vocab_size"
    for name, field in reader.fields.items():
        if name.startswith(("GGUF.", "tokenizer.")) or name in ("general.architecture", size_key):
            continue
        is_array = field.types[0] == gguf.GGUFValueType.ARRAY
        writer.add_key_value(name, field.contents(), field.types[0], field.types[-1] if is_array else None)
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(len(tokens.ids))
    ids = np.array(tokens.ids)
    for tensor in reader.tensors:
        has_rows = tensor.name in (_EMBEDDINGS, _HEAD, _HEAD_BIAS)
        data = tensor.data[ids] if has_rows else tensor.data
        writer.add_tensor(tensor.name, data, raw_dtype=tensor.tensor_type)
        if tensor.name == _EMBEDDINGS:
            np.save(folder / _EMBEDDINGS_FILE, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
