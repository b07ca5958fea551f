"""GGUF files: validation, and the tokenizer that a file may embed."""

from __future__ import annotations

import hashlib
import logging
import mmap
from pathlib import Path
from typing import Any

from semanticspec.errors import EngineError, ModelError, first_line
from semanticspec.install_hints import install_hint
from semanticspec.output.conversion_cache import keep_conversion, kept_conversion
from semanticspec.output.quiet import quiet

HF_TOKENIZER_KEY = "tokenizer.huggingface.json"
"""Metadata key of an embedded `tokenizer.json`. Source: GGUF specification."""

ADAPTER_KEY = "semanticspec.adapter"
"""Metadata key of the digest of the LoRA adapter that the weights contain."""

_MAGIC = b"GGUF"
_DIGEST_BYTES = 2**16
# Upper bound for the metadata, with the tokens and merges of the largest vocabularies.
_METADATA_BYTES = 2**26
_BLOCK_BYTES = 2**22

_logger = logging.getLogger(__name__)


def gguf_digest(model: str) -> str:
    """Returns a digest of a GGUF file, from its first 64 KiB, name and size.

    Raises:
        ModelError: The file does not exist, or is not a GGUF file.
    """
    path = Path(model).expanduser()
    if not path.is_file():
        raise ModelError(f"there is no file {path}; expected a GGUF file")
    with path.open("rb") as file:
        head = file.read(_DIGEST_BYTES)
    if not head.startswith(_MAGIC):
        raise ModelError(f"{path} is not a GGUF file: it does not start with the bytes GGUF")
    return hashlib.sha256(head + f"{path.name}:{path.stat().st_size}".encode()).hexdigest()[:16]


def load_tokenizer(path: Path) -> Any:
    """Loads the tokenizer of a GGUF file: an embedded `tokenizer.json`, else llama.cpp's metadata converted.

    Conversion can take minutes for large vocabularies. It runs once per file: the result is kept, see
    `conversion_cache`.

    Raises:
        EngineError: The package gguf is not installed.
        ModelError: The kept tokenizer is broken.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if (embedded := load_embedded_tokenizer(path)) is not None:
        return embedded
    name = f"gguf/{conversion_key(path, _METADATA_BYTES)}-tokenizer"
    folder = kept_conversion(name)
    if folder is not None:
        try:
            with quiet():
                return PreTrainedTokenizerFast.from_pretrained(str(folder))
        except Exception as error:
            raise ModelError(f"cannot read {folder} ({first_line(error)}); delete this folder") from error
    _logger.warning(
        "converting the tokenizer of %s; this may take minutes, and happens once per file", path.name
    )
    tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    keep_conversion(name, tokenizer.save_pretrained)
    return tokenizer


def conversion_key(path: Path, num_bytes: int | None = None) -> str:
    """Returns a key for what transformers converts from the first `num_bytes` of a file (default: all)."""
    import transformers

    digest = hashlib.sha256()
    left = path.stat().st_size if num_bytes is None else num_bytes
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(left, _BLOCK_BYTES))):
            digest.update(block)
            left -= len(block)
    return f"{digest.hexdigest()[:32]}-transformers-{transformers.__version__}"


def load_embedded_tokenizer(path: Path) -> Any | None:
    """Loads the `tokenizer.json` embedded in a GGUF file.

    This is exact and fast; converting llama.cpp's own tokenizer metadata is neither.

    Returns:
        A `PreTrainedTokenizerFast`, or None if the file embeds no `tokenizer.json`.

    Raises:
        EngineError: The package gguf is not installed.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content.find(HF_TOKENIZER_KEY.encode(), 0, _METADATA_BYTES) < 0:
            return None
    reader = import_gguf().GGUFReader(path)

    def value(key: str) -> Any:
        return reader.fields[key].contents() if key in reader.fields else None

    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer.from_str(value(HF_TOKENIZER_KEY))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, clean_up_tokenization_spaces=False)
    tokenizer.eos_token = backend.id_to_token(value("tokenizer.ggml.eos_token_id"))
    if (pad_id := value("tokenizer.ggml.padding_token_id")) is not None:
        tokenizer.pad_token = backend.id_to_token(pad_id)
    tokenizer.chat_template = value("tokenizer.chat_template")
    return tokenizer


def import_gguf() -> Any:
    """Imports the package gguf.

    Raises:
        EngineError: It is not installed.
    """
    try:
        import gguf
    except ImportError as error:
        raise EngineError(f"GGUF files need the package gguf: {install_hint('gguf')}") from error
    return gguf
