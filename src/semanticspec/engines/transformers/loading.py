"""Finds and loads models for transformers. Problems are reported early, in one line."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from semanticspec.engines.transformers.adapters import merge_adapter, merged_adapter
from semanticspec.errors import ConfigError, EngineError, ModelError, first_line
from semanticspec.install_hints import install_hint
from semanticspec.output.conversion_cache import keep_conversion, kept_conversion
from semanticspec.output.quiet import quiet
from semanticspec.text.gguf_files import conversion_key, gguf_digest

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".gguf")
_MAX_KEPT_FILE_BYTES = 2**30
"""Dequantized weights are kept for GGUF files of at most this size; they take four to ten times as much on disk."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model on its device, ready to run. `revision`, `adapter`: see `EngineInfo`."""

    model: Any
    revision: str
    max_context_tokens: int
    adapter: str = ""


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model that exists, not loaded yet.

    Attributes:
        name: folder or hub name to load it by.
        config: its transformers config.
        revision: commit on the hub, or a digest of the folder's files.
    """

    name: str
    config: Any
    revision: str


def load_model(
    model: str, revision: str | None, dtype: str, device: str, adapter: str | None = None
) -> Loaded:
    """Loads a causal LM by hub name, local folder or `.gguf` file.

    Args:
        adapter: LoRA adapter to merge into the weights, see `adapters`.

    Raises:
        ConfigError: The dtype or device is unknown or unavailable.
        ModelError: Model or adapter do not exist or do not fit, or the model is not a causal LM or has broken files.
        EngineError: A package is missing.
    """
    if adapter is not None:
        return _with_adapter(load_model(model, revision, dtype, device), adapter, model)
    torch_device = resolve_device(device)
    if dtype != "auto" and dtype not in DTYPES:
        raise ConfigError(f"dtype is {dtype!r}; expected auto, {', '.join(DTYPES)}")
    torch_dtype = DTYPES.get(dtype, "auto")  # auto: the checkpoint's own
    with quiet():
        if model.endswith(".gguf"):
            return _load_gguf(Path(model).expanduser(), torch_dtype, torch_device)
        found = find_model(model, revision)
        options = {"config": found.config, "revision": revision, "dtype": torch_dtype}
        loaded = _load_weights(model, found.name, torch_device, **options)
    return Loaded(loaded, found.revision, max_context(found.config), merged_adapter(found.config))


def _with_adapter(loaded: Loaded, adapter: str, model: str) -> Loaded:
    if loaded.adapter:
        raise ModelError(f"the weights of {model} contain an adapter already; load it without another one")
    merged, digest = merge_adapter(loaded.model, adapter)
    return replace(loaded, model=merged, adapter=digest)


def find_model(model: str, revision: str | None = None) -> FoundModel:
    """Finds a causal LM by hub name or local folder, without loading its weights.

    Raises:
        ModelError: The model does not exist, is not a causal LM, or has broken files.
    """
    name = _check_name(model)
    config = _load_config(model, name, revision)
    _check_causal(model, config)
    if not Path(name).is_dir():
        return FoundModel(name, config, str(getattr(config, "_commit_hash", None) or ""))
    _check_safetensors(Path(name))
    return FoundModel(name, config, folder_digest(Path(name)))


def context_limit(model: str) -> int:
    """Returns the context limit of a model by name, without loading its weights.

    Raises:
        ModelError: The model does not exist, or is not a causal LM.
    """
    if model.endswith(".gguf"):
        path = Path(model).expanduser()
        return max_context(AutoConfig.from_pretrained(str(path.parent), gguf_file=path.name))
    return max_context(find_model(model).config)


def resolve_device(device: str) -> torch.device:
    """Returns the torch device for auto, cpu, cuda, cuda:N or mps.

    Raises:
        ConfigError: The device is unknown or unavailable.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and (kind != "cuda" or not index.isdigit())):
        raise ConfigError(f"device is {device!r}; expected auto, cpu, cuda, cuda:N or mps")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device is 'mps', but this machine has no MPS; use device auto or cpu")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count <= int(index or 0):
            raise ConfigError(
                f"device is {device!r}, but torch finds {count} CUDA device{'s' * (count != 1)}; "
                "use device auto or cpu"
            )
    return torch.device(device)


def max_context(config: Any) -> int:
    """Returns the model's context limit; 2^20 if it has none (no position embeddings)."""
    text_config = config.get_text_config(decoder=True)
    return int(getattr(text_config, "max_position_embeddings", None) or 2**20)


def _check_name(model: str) -> str:
    """Returns what to load the model by: an existing folder, or a possible hub name."""
    path = Path(model).expanduser()
    if model and path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{model} is not a model: the folder has no config.json")
        return str(path)
    if path.is_file():
        raise ModelError(f"{model} is not a model; expected a folder, a .gguf file or a hub name")
    if model.startswith((".", "/", "~")) or model.count("/") > 1 or "\\" in model or not model:
        raise ModelError(f"there is no folder {model!r}; expected a model folder, a .gguf file or a hub name")
    return model


def _load_config(model: str, name: str, revision: str | None) -> Any:
    try:
        return AutoConfig.from_pretrained(name, revision=revision)
    except OSError as error:
        if Path(name).is_dir():
            raise ModelError(f"{model} is not a model: cannot read its config.json") from error
        at = f" at revision {revision!r}" if revision else ""
        raise ModelError(
            f"cannot find the model {model!r}{at}, neither as a folder nor on the hub; check the name, the network, "
            "and for gated models `hf auth login`"
        ) from error
    except Exception as error:
        raise ModelError(f"{model} is not a model that transformers knows: {first_line(error)}") from error


def _check_causal(model: str, config: Any) -> None:
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type, ())
    classes = {known} if isinstance(known, str) else set(known)
    architectures = set(config.architectures or classes)
    if getattr(config, "is_encoder_decoder", False) or not classes & architectures:
        found = ", ".join(sorted(config.architectures or [])) or config.model_type
        raise ModelError(f"{model} is a {found}; expected a causal language model")


def _check_safetensors(folder: Path) -> None:
    """Opens the header of every weight file, so that truncated downloads are found before the model is built."""
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                pass
        except Exception as error:
            raise ModelError(f"{path} is broken ({first_line(error)}); download it again") from error


def _load_weights(model: str, name: str, device: torch.device, **options: Any) -> Any:
    """Loads a model to a device. Raises ModelError if weights are broken, missing or of another shape."""
    try:
        loaded, report = AutoModelForCausalLM.from_pretrained(name, output_loading_info=True, **options)
    except Exception as error:
        raise ModelError(f"cannot load {model}: {first_line(error)}") from error
    if missing := sorted(report["missing_keys"]):  # transformers would initialize them at random
        raise ModelError(f"{model} lacks {len(missing)} of its weights, among them {missing[0]}")
    try:
        return loaded.to(device).eval()
    except RuntimeError as error:
        raise ModelError(f"{model} does not fit on {device}: {first_line(error)}") from error


def _load_gguf(path: Path, dtype: torch.dtype | str, device: torch.device) -> Loaded:
    """Loads a GGUF file, dequantized. Weights of small files are kept, see `conversion_cache`."""
    digest = gguf_digest(str(path))
    for package in ("gguf", "accelerate"):  # transformers needs both to read GGUF files
        if importlib.util.find_spec(package) is None:
            raise EngineError(f"GGUF files need the package {package}: {install_hint('gguf')}")
    is_small = path.stat().st_size <= _MAX_KEPT_FILE_BYTES
    name = f"gguf/{conversion_key(path)}-{str(dtype).removeprefix('torch.')}" if is_small else ""
    folder = kept_conversion(name) if name else None
    if folder is not None:
        loaded = _load_weights(f"{folder} (delete it to convert again)", str(folder), device, dtype=dtype)
    else:
        _logger.warning("dequantizing %s%s", path.name, "; this happens once per file" if name else "")
        dequantize = GgufConfig(dequantize=True)
        options = {"gguf_file": path.name, "quantization_config": dequantize, "dtype": dtype}
        loaded = _load_weights(str(path), str(path.parent), device, **options)
        if name:
            keep_conversion(name, loaded.save_pretrained)
    return Loaded(loaded, digest, max_context(loaded.config))


def folder_digest(folder: Path) -> str:
    """Returns a digest of the config and of the names and sizes of weight files."""
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(folder.iterdir()):
        if path.suffix in _WEIGHT_SUFFIXES:
            digest.update(f"{path.name}:{path.stat().st_size}\n".encode())
    return digest.hexdigest()[:16]
