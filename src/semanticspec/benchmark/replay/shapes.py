"""Published model shapes, and models of these shapes with random weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from semanticspec.errors import ConfigError, ModelError, first_line

if TYPE_CHECKING:
    from semanticspec.engines.transformers.loading import Loaded


@dataclass(frozen=True, slots=True)
class Shape:
    """The shape of a model, from its `config.json`.

    Attributes:
        source: origin of the values.
        values: fields of `config.json`.
    """

    name: str
    source: str
    values: Mapping[str, Any]


_LOGIT_SPREAD = 5.0
"""Standard deviation of the random logits: a nucleus of 0.95 at temperature 0.6 then holds a handful of tokens."""


def _qwen2(source: str, **values: Any) -> tuple[str, dict[str, Any]]:
    common = {
        "model_type": "qwen2",
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "rope_theta": 1_000_000.0,
        "use_sliding_window": False,
    }
    return source, common | values


SHAPES: Mapping[str, tuple[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "qwen2-32b": _qwen2(
            "config.json of Qwen/Qwen2.5-32B",
            hidden_size=5120,
            intermediate_size=27648,
            num_hidden_layers=64,
            num_attention_heads=40,
            num_key_value_heads=8,
            vocab_size=152064,
            max_position_embeddings=131072,
            rms_norm_eps=1e-5,
            tie_word_embeddings=False,
        ),
        "qwen2-7b": _qwen2(
            "config.json of Qwen/Qwen2.5-7B",
            hidden_size=3584,
            intermediate_size=18944,
            num_hidden_layers=28,
            num_attention_heads=28,
            num_key_value_heads=4,
            vocab_size=152064,
            max_position_embeddings=131072,
            rms_norm_eps=1e-6,
            tie_word_embeddings=False,
        ),
        "qwen2-1.5b": _qwen2(
            "config.json of Qwen/Qwen2.5-1.5B",
            hidden_size=1536,
            intermediate_size=8960,
            num_hidden_layers=28,
            num_attention_heads=12,
            num_key_value_heads=2,
            vocab_size=151936,
            max_position_embeddings=131072,
            rms_norm_eps=1e-6,
            tie_word_embeddings=True,
        ),
        "qwen2-0.5b": _qwen2(
            "config.json of Qwen/Qwen2.5-0.5B",
            hidden_size=896,
            intermediate_size=4864,
            num_hidden_layers=24,
            num_attention_heads=14,
            num_key_value_heads=2,
            vocab_size=151936,
            max_position_embeddings=32768,
            rms_norm_eps=1e-6,
            tie_word_embeddings=True,
        ),
        "small": _qwen2(
            "ours, not published: a target for a CPU",
            hidden_size=512,
            intermediate_size=2048,
            num_hidden_layers=12,
            num_attention_heads=8,
            num_key_value_heads=2,
            vocab_size=8192,
            max_position_embeddings=32768,
            rms_norm_eps=1e-6,
            tie_word_embeddings=True,
        ),
        "tiny": _qwen2(
            "ours, not published: a draft for a CPU, and for tests",
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=512,
            max_position_embeddings=32768,
            rms_norm_eps=1e-6,
            tie_word_embeddings=True,
        ),
    }
)


def find_shape(name: str) -> Shape:
    """Returns a shape by name, or by the path of a `config.json` or its folder.

    Raises:
        ConfigError: there is no such shape, or the file does not describe one.
    """
    if name in SHAPES:
        return Shape(name, *SHAPES[name])
    path = Path(name).expanduser()
    if path.is_dir():
        path /= "config.json"
    if not path.is_file():
        raise ConfigError(
            f"there is no shape {name!r}; choose from {', '.join(SHAPES)}, or give the path of a config.json"
        )
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {first_line(error)}") from error
    if not isinstance(values, dict) or not isinstance(values.get("model_type"), str):
        raise ConfigError(f"{path} is not a model config: expected a config.json with a model_type")
    return Shape(name, str(path), values)


def model_config(shape: Shape) -> Any:
    """The shape as a configuration of transformers.

    Raises:
        ConfigError: transformers knows no such model.
    """
    from transformers import AutoConfig

    # Random weights are never quantised, even if the published ones are.
    values = {key: value for key, value in shape.values.items() if key != "quantization_config"}
    try:
        return AutoConfig.for_model(**values)
    except Exception as error:
        raise ConfigError(
            f"transformers does not know the shape {shape.name}: {first_line(error)}"
        ) from error


def count_parameters(shape: Shape) -> int:
    """Returns the number of weights of a model of this shape, without allocating any.

    Raises:
        ConfigError: transformers cannot make a causal language model of it.
    """
    import torch
    from transformers import AutoModelForCausalLM

    config = model_config(shape)
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except Exception as error:
        raise ConfigError(f"{shape.name} is not a causal language model: {first_line(error)}") from error
    return int(model.num_parameters())


def check_place(device: str, dtype: str) -> None:
    """Raises ConfigError for an unknown dtype, or a device that is unknown or unavailable."""
    from semanticspec.engines.transformers.loading import DTYPES, resolve_device

    resolve_device(device)
    if dtype not in DTYPES:
        raise ConfigError(f"dtype is {dtype!r}; expected {', '.join(DTYPES)}")


def build_model(shape: Shape, *, device: str, dtype: str, seed: int) -> Loaded:
    """Makes a model of this shape with random weights, directly on the device.

    Raises:
        ConfigError: the device or the dtype is unknown or not there.
        ModelError: it does not fit on the device.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from semanticspec.engines.transformers.loading import DTYPES, Loaded, max_context, resolve_device
    from semanticspec.output.quiet import quiet

    check_place(device, dtype)
    config, where = model_config(shape), resolve_device(device)
    devices = [where] if where.type == "cuda" else []
    try:
        with quiet(), torch.random.fork_rng(devices=devices), torch.device(where):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(config, dtype=DTYPES[dtype]).requires_grad_(False)
            _sharpen(model)
    except RuntimeError as error:  # out of memory is one
        raise ModelError(f"{shape.name} in {dtype} does not fit on {where}: {first_line(error)}") from error
    return Loaded(model.eval(), f"random weights, seed {seed}", max_context(config))


def _sharpen(model: Any) -> None:
    """Redraws the output head so that a few tokens hold most of the probability, as in a trained model.

    As initialised for training, all of a large vocabulary is about equally likely, and sampling from that takes
    other, slower ways than sampling from a text model.
    """
    head = model.get_output_embeddings().weight  # [vocabulary, hidden]
    head.normal_(std=_LOGIT_SPREAD / head.shape[1] ** 0.5)  # states have unit size after the final norm
