"""Starts vLLM for one model."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

from semanticspec.engines.base import LAST_LAYER, Capabilities, EngineInfo, StateSpec
from semanticspec.engines.runtime.requests import ScoreRequest
from semanticspec.engines.transformers.adapters import merged_adapter
from semanticspec.engines.transformers.loading import FoundModel, find_model
from semanticspec.engines.vllm.client import VllmClient
from semanticspec.engines.vllm.final_norm import load_final_norm
from semanticspec.engines.vllm.mailbox import Mailbox
from semanticspec.engines.vllm.options import VllmOptions
from semanticspec.engines.vllm.scoring import score
from semanticspec.errors import ConfigError, ModelError
from semanticspec.output.quiet import quiet
from semanticspec.records import GREEDY

_CONNECTOR = "semanticspec.engines.vllm.connector"
# Defaults for vLLM's processes: no log on the terminal, and no threads that keep all cores spinning.
_ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_WAIT_POLICY": "PASSIVE",
}


async def start_vllm(model: str, options: VllmOptions, states: StateSpec) -> tuple[VllmClient, EngineInfo]:
    """Starts vLLM's processes, loads the model there, and runs a warm-up request.

    Raises:
        ConfigError: vLLM cannot return the selected states, or refuses an argument.
        ModelError: vLLM cannot run the model.
    """
    if states.layer != LAST_LAYER:
        raise ConfigError(f"layer is {states.layer}; the engine vllm gives the last layer's states only (-1)")
    if states.pooling == "none":
        raise ConfigError("pooling is none; the engine vllm gives pooled states only (mean or last)")
    with quiet():
        found = find_model(model)
        norm = load_final_norm(found)
    mailbox = Mailbox()
    try:
        with _set_environment(_ENVIRONMENT | options.environment):
            llm = _start_engine(found, options, norm.epsilon, mailbox.address)
    except BaseException:
        mailbox.close()
        raise
    client = VllmClient(llm, mailbox, norm.weight, states.pooling)
    try:
        # The first request for prompt log-probabilities compiles kernels for many seconds.
        await score(client, ScoreRequest([0], [[0, 0]], GREEDY, 0, False, None))
    except BaseException:
        await client.aclose()
        raise
    config = llm.vllm_config.model_config
    return client, EngineInfo(
        model_id=model,
        revision=found.revision,
        hidden_size=config.get_hidden_size(),
        num_layers=config.get_total_num_hidden_layers(),
        vocabulary_size=config.get_vocab_size(),
        max_context_tokens=config.max_model_len - 1,  # vLLM generates a token beyond what it scores
        norm_state=states.norm_state,
        capabilities=Capabilities(position_seeds=False),
        layer=states.layer,
        pooling=states.pooling,
        adapter=merged_adapter(found.config),
    )


def _start_engine(found: FoundModel, options: VllmOptions, epsilon: float, address: str) -> Any:
    """Returns vLLM's `AsyncLLM` with our connector."""
    from vllm.config import KVTransferConfig
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    model = found.name
    num_layers = found.config.get_text_config(decoder=True).num_hidden_layers
    required = {
        "model": model,
        "skip_tokenizer_init": True,
        "speculative_config": {
            "method": "extract_hidden_states",
            "num_speculative_tokens": 1,
            "draft_model_config": {"hf_config": {"eagle_aux_hidden_state_layer_ids": [num_layers]}},
        },
        "kv_transfer_config": KVTransferConfig(
            kv_connector="PooledStatesConnector",
            kv_connector_module_path=_CONNECTOR,
            kv_role="kv_producer",
            kv_connector_extra_config={"epsilon": epsilon, "address": address},
        ),
    }
    defaults = {"dtype": options.dtype, "enable_prefix_caching": True, "disable_log_stats": True}
    try:
        arguments = AsyncEngineArgs(**(defaults | dict(options.arguments) | required))
        config = arguments.create_engine_config()
    except TypeError as error:
        raise ConfigError(f"vLLM does not know an engine argument: {error}") from error
    except ValueError as error:
        raise ConfigError(f"vLLM refuses these arguments for {model}: {error}") from error
    try:
        return AsyncLLM.from_vllm_config(config, disable_log_stats=True)
    except Exception as error:
        raise ModelError(
            f"vLLM cannot run {model}: {error}; set VLLM_LOGGING_LEVEL=INFO to see its log"
        ) from error


@contextlib.contextmanager
def _set_environment(values: Mapping[str, str]) -> Iterator[None]:
    """Sets environment variables for processes started within. Only CUDA_VISIBLE_DEVICES overrides the user's value."""
    added = {
        name: value
        for name, value in values.items()
        if name not in os.environ or name == "CUDA_VISIBLE_DEVICES"
    }
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
