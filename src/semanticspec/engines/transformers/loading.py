"""Finding and loading a model: every way this can go wrong ends in one clear line, as early as possible."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from semanticspec.errors import ConfigError, EngineError, ModelError, first_line
from semanticspec.output.quiet import quiet
from semanticspec.text.gguf_files import gguf_digest

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".gguf")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model on its device, ready to run, and where it came from."""

    model: Any
    revision: str
    max_context_tokens: int


@dataclass(frozen=True, slots=True)
class Found:
    """A model that is there.

    Attributes:
        name: what libraries load it by.
        revision: the hub's commit, or a digest of a folder's files.
    """

    name: str
    config: Any
    revision: str


def load_model(model: str, revision: str | None, dtype: str, device: str) -> Loaded:
    """Loads a causal LM by hub name, local folder or `.gguf` file.

    Raises:
        ConfigError: the dtype or device is unknown or not there.
        ModelError: there is no such model, it is no causal LM, or its files are broken.
        EngineError: a package is missing.
    """
    torch_device = resolve_device(device)
    torch_dtype = _resolve_dtype(dtype)
    with quiet():
        if model.endswith(".gguf"):
            return _load_gguf(Path(model).expanduser(), torch_dtype, torch_device)
        found = find_model(model, revision)
        options = {"config": found.config, "revision": revision, "dtype": torch_dtype}
        loaded = _load_weights(model, found.name, torch_device, **options)
    return Loaded(loaded, found.revision, max_context(found.config))


def find_model(model: str, revision: str | None = None) -> Found:
    """Finds a causal LM by hub name or local folder, without its weights.

    Raises:
        ModelError: there is no such model, it is no causal LM, or its files are broken.
    """
    name = _checked_name(model)
    config = _read_config(model, name, revision)
    _check_causal(model, config)
    if not Path(name).is_dir():
        return Found(name, config, str(getattr(config, "_commit_hash", None) or ""))
    _check_safetensors(Path(name))
    return Found(name, config, _folder_digest(Path(name)))


def resolve_device(device: str) -> torch.device:
    """The device meant by auto, cpu, cuda, cuda:N or mps.

    Raises:
        ConfigError: it is unknown or not there.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda", "mps") or (index and (kind != "cuda" or not index.isdigit())):
        raise ConfigError(f"device is {device!r}; expected auto, cpu, cuda, cuda:N or mps")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device is 'mps', which this machine does not have; use --device auto or cpu")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count <= int(index or 0):
            there = f"this machine has {count} CUDA device{'s' * (count != 1)} that torch can use"
            raise ConfigError(f"device is {device!r}, but {there}; use device auto or cpu")
    return torch.device(device)


def _resolve_dtype(dtype: str) -> torch.dtype | str:
    if dtype == "auto":
        return "auto"  # the checkpoint's own
    if dtype not in DTYPES:
        raise ConfigError(f"dtype is {dtype!r}; expected auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _checked_name(model: str) -> str:
    """The name to load by: a folder that exists, or something that can be a hub name."""
    path = Path(model).expanduser()
    if model and path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(f"{model} is no model: the folder has no config.json")
        return str(path)
    if path.is_file():
        raise ModelError(f"{model} is no model: expected a folder, a .gguf file or a hub name")
    if model.startswith((".", "/", "~")) or model.count("/") > 1 or "\\" in model or not model:
        raise ModelError(f"there is no folder {model!r}; expected a model folder, a .gguf file or a hub name")
    return model


def _read_config(model: str, name: str, revision: str | None) -> Any:
    try:
        return AutoConfig.from_pretrained(name, revision=revision)
    except OSError as error:
        if Path(name).is_dir():
            raise ModelError(f"{model} is no model: its config.json cannot be read") from error
        at = f" at revision {revision!r}" if revision else ""
        raise ModelError(
            f"cannot find the model {model!r}{at}: no such folder here, and the hub does not give it out; "
            "check the name, the network, and for gated models `hf auth login`"
        ) from error
    except Exception as error:
        raise ModelError(f"{model} is no model transformers knows: {first_line(error)}") from error


def _check_causal(model: str, config: Any) -> None:
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type, ())
    classes = {known} if isinstance(known, str) else set(known)
    architectures = set(config.architectures or classes)
    if getattr(config, "is_encoder_decoder", False) or not classes & architectures:
        what = ", ".join(sorted(config.architectures or [])) or config.model_type
        raise ModelError(f"{model} is no causal language model (it is {what}); expected one that writes text")


def _check_safetensors(folder: Path) -> None:
    """Opens every weight file's header, so that a truncated download shows before anything is built."""
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                pass
        except Exception as error:
            raise ModelError(f"{path} is broken ({first_line(error)}); download it again") from error


def _load_weights(model: str, name: str, device: torch.device, **options: Any) -> Any:
    """Raises ModelError when weights are broken, missing or of another shape."""
    try:
        loaded, report = AutoModelForCausalLM.from_pretrained(name, output_loading_info=True, **options)
    except Exception as error:
        raise ModelError(f"cannot load {model}: {first_line(error)}") from error
    if missing := sorted(report["missing_keys"]):
        # transformers would go on with random numbers in their place.
        raise ModelError(f"{model} lacks {len(missing)} of its weights, among them {missing[0]}")
    try:
        return loaded.to(device).eval()
    except RuntimeError as error:
        raise ModelError(f"{model} does not fit on {device}: {first_line(error)}") from error


def _load_gguf(path: Path, dtype: torch.dtype | str, device: torch.device) -> Loaded:
    digest = gguf_digest(str(path))
    for package in ("gguf", "accelerate"):  # transformers needs both to read such files
        if importlib.util.find_spec(package) is None:
            raise EngineError(f"GGUF files need the package {package}: pip install semanticspec[gguf]")
    from transformers import GgufConfig

    dequantize = GgufConfig(dequantize=True)
    loaded = _load_weights(
        str(path), str(path.parent), device, gguf_file=path.name, quantization_config=dequantize, dtype=dtype
    )
    return Loaded(loaded, digest, max_context(loaded.config))


def max_context(config: Any) -> int:
    """Models without a limit of their own (no position embeddings) get one that never binds."""
    text_config = config.get_text_config(decoder=True)
    return int(getattr(text_config, "max_position_embeddings", None) or 2**20)


def _folder_digest(folder: Path) -> str:
    """Tells local models apart without reading gigabytes: config, and weight files' names and sizes."""
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(folder.iterdir()):
        if path.suffix in _WEIGHT_SUFFIXES:
            digest.update(f"{path.name}:{path.stat().st_size}\n".encode())
    return digest.hexdigest()[:16]
