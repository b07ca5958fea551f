"""Writes an aligned draft: the adapter, a merged folder for transformers and vLLM, a merged GGUF file for llama.cpp."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semanticspec.engines.llama_cpp.library import import_llama_cpp
from semanticspec.engines.transformers.adapters import ADAPTER_CONFIG_KEY, adapter_digest
from semanticspec.errors import ModelError, ProbeError
from semanticspec.text.gguf_files import ADAPTER_KEY, import_gguf
from semanticspec.text.vocabulary import Vocabulary

Matrix = NDArray[np.float32]
_FLOATS = ("F32", "F16", "BF16")
# Llama files interleave the rows that rotary embeddings pair up. Source: llama.cpp's convert_hf_to_gguf.py.
_INTERLEAVED_ARCHITECTURES = ("llama",)
# A quantized weight matrix is this close to the original, in relative squared error; 2-bit files are the coarsest.
_MAX_ERROR = 0.2


def merge(model: Any, adapter: Path) -> Any:
    """Merges the adapter of a trained model into its weights, and names it in the config.

    Args:
        model: a `PeftModel`.
        adapter: its saved adapter.
    """
    return named(model.merge_and_unload(), adapter_digest(adapter))


def named(merged: Any, digest: str) -> Any:
    """Names the adapter that a model's weights contain in the model's config, so that files made of it say so."""
    setattr(merged.config, ADAPTER_CONFIG_KEY, digest)
    return merged


def write_folder(merged: Any, vocabulary: Vocabulary, folder: Path) -> None:
    """Writes a merged model with its tokenizer as a folder for transformers. The folder appears when it is complete.

    Raises:
        ProbeError: It cannot be written.
    """
    part = folder.with_name(f".{folder.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        merged.save_pretrained(part)
        vocabulary.tokenizer.save_pretrained(part)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise ProbeError(
            f"{folder} cannot be written: {error.strerror or error}; free some space and rerun the same command"
        ) from error


def write_gguf(merged: Any, base: Path, path: Path) -> int:
    """Writes a copy of a GGUF file of the same model with merged weights, each quantized as in that file.

    Args:
        merged: transformers model that `merge` returned.
        base: GGUF file of the model without the adapter.
        path: output file; an existing file is replaced.

    Returns:
        The number of replaced tensors.

    Raises:
        ModelError: The file is of another model.
        EngineError: gguf or llama-cpp-python are not installed.
        ProbeError: The file cannot be written.
    """
    gguf = import_gguf()
    reader = gguf.GGUFReader(base)
    architecture = reader.fields["general.architecture"].contents()
    weights = dict(_linear_weights(merged, architecture))
    part = path.with_name(f".{path.name}.part")
    try:
        writer = gguf.GGUFWriter(part, architecture)
        _copy_metadata(reader, writer)
        writer.add_string(ADAPTER_KEY, getattr(merged.config, ADAPTER_CONFIG_KEY))
        for tensor in reader.tensors:
            data = tensor.data
            if tensor.name in weights:
                data = _replaced(tensor, weights[tensor.name], base)
            writer.add_tensor(tensor.name, data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        part.replace(path)
    except OSError as error:
        raise ProbeError(
            f"{path} cannot be written: {error.strerror or error}; free some space and rerun the same command"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return sum(tensor.name in weights for tensor in reader.tensors)


def _copy_metadata(reader: Any, writer: Any) -> None:
    gguf = import_gguf()
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", ADAPTER_KEY):
            continue
        is_array = field.types[0] == gguf.GGUFValueType.ARRAY
        writer.add_key_value(name, field.contents(), field.types[0], field.types[-1] if is_array else None)


def _linear_weights(merged: Any, architecture: str) -> Iterator[tuple[str, Any]]:
    """Yields the weights that LoRA changes, by their GGUF names: all linear layers except the head."""
    from torch import nn

    gguf = import_gguf()
    kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
    config = merged.config.get_text_config()
    if architecture not in kinds:
        raise ModelError(f"the package gguf does not know the architecture {architecture}; update it")
    names = gguf.get_tensor_name_map(kinds[architecture], config.num_hidden_layers)
    for name, module in merged.named_modules():
        if not isinstance(module, nn.Linear) or module is merged.get_output_embeddings():
            continue
        found = names.get_name(f"{name}.weight", (".weight",))
        if found is None:
            raise ModelError(f"the package gguf has no name for the weight {name} of a {architecture} model")
        weight = module.weight.detach()
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        num_heads = heads.get(name.rpartition(".")[2])
        if architecture in _INTERLEAVED_ARCHITECTURES and num_heads:
            rows, columns = weight.shape
            weight = weight.view(num_heads, 2, rows // num_heads // 2, columns).transpose(1, 2)
            weight = weight.reshape(rows, columns)
        yield found, weight


def _replaced(tensor: Any, weight: Any, base: Path) -> Any:
    """Returns a tensor's new data in its own type."""
    gguf = import_gguf()
    values: Matrix = weight.float().numpy()
    before = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
    if before.shape != values.shape or _relative_error(before, values) > _MAX_ERROR:
        raise ModelError(
            f"{base} is a file of another model than the draft: {tensor.name} differs; give the GGUF file that was "
            "made of the draft"
        )
    kind = tensor.tensor_type
    if kind.name in _FLOATS:
        return gguf.quants.quantize(values, kind)
    return quantize_rows(values, kind)


def _relative_error(before: Matrix, after: Matrix) -> float:
    return float(np.square(before - after).sum() / max(np.square(before).sum(), 1e-12))


def quantize_rows(values: Matrix, kind: Any) -> NDArray[np.uint8]:
    """Quantizes a matrix with ggml's own code.

    Args:
        values: `[rows, columns]`.
        kind: a `gguf.GGMLQuantizationType`.

    Returns:
        The quantized bytes, `[rows, bytes]`.

    Raises:
        EngineError: llama-cpp-python is not installed.
    """
    gguf = import_gguf()
    ggml = _ggml()
    rows, columns = values.shape
    block, size = gguf.GGML_QUANT_SIZES[kind]
    result = np.zeros((rows, columns // block * size), np.uint8)
    source = np.ascontiguousarray(values, np.float32)
    written = ggml.ggml_quantize_chunk(
        int(kind), source.ctypes.data, result.ctypes.data, 0, rows, columns, None
    )
    assert written == result.nbytes, f"ggml wrote {written} bytes, expected {result.nbytes}"
    return result


def _ggml() -> Any:
    """Returns the library of llama-cpp-python that quantizes."""
    llama = import_llama_cpp()
    folder = Path(llama.__file__).parent / "lib"
    found = next(path for path in sorted(folder.iterdir()) if "ggml-base" in path.name)
    library = ctypes.CDLL(str(found))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_void_p,
    ]
    return library
