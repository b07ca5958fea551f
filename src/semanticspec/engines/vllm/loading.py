"""Starts vLLM for one model."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from semanticspec.engines.base import LAST_LAYER, Capabilities, EngineInfo, StateSpec
from semanticspec.engines.transformers.loading import Found, find_model
from semanticspec.engines.vllm.calls import Caller
from semanticspec.engines.vllm.final_norm import read_final_norm
from semanticspec.engines.vllm.mailbox import Mailbox
from semanticspec.engines.vllm.options import VllmOptions
from semanticspec.errors import ConfigError, ModelError
from semanticspec.output.quiet import quiet
from semanticspec.records import GREEDY

_CONNECTOR = "semanticspec.engines.vllm.connector"
# Unless the user has set them: as vLLM's own would keep all cores spinning, and a terminal full of its log.
_ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_WAIT_POLICY": "PASSIVE",
}


@dataclass(frozen=True, slots=True)
class Started:
    """A vLLM engine that runs, with all that belongs to it. Lives on one event loop."""

    llm: Any
    mailbox: Mailbox
    caller: Caller
    info: EngineInfo

    async def aclose(self) -> None:
        """Ends vLLM's processes."""
        self.llm.shutdown()
        self.mailbox.close()


async def start(model: str, options: VllmOptions, states: StateSpec) -> Started:
    """Starts vLLM's processes, loads the model there, and warms it up.

    Raises:
        ConfigError: states are asked for that vLLM cannot give, or it refuses an argument.
        ModelError: vLLM cannot run the model.
    """
    if states.layer != LAST_LAYER:
        raise ConfigError(f"layer is {states.layer}; the engine vllm gives the last layer's states only (-1)")
    if states.pooling == "none":
        raise ConfigError("the engine vllm gives pooled states only (mean or last), not those of every token")
    with quiet():
        found = find_model(model)
        norm = read_final_norm(found)
    mailbox = Mailbox()
    try:
        with _environment(_ENVIRONMENT | options.environment):
            llm = _start(found, options, norm.epsilon, mailbox.address)
    except BaseException:
        mailbox.close()
        raise
    caller = Caller(llm, mailbox, norm.weight, states.pooling)
    started = Started(llm, mailbox, caller, _info(model, found, llm, states))
    try:
        # The first ranks of prompt tokens make vLLM compile for many seconds.
        await caller.score([0], [[0, 0]], GREEDY, 0)
    except BaseException:
        await started.aclose()
        raise
    return started


def _start(found: Found, options: VllmOptions, epsilon: float, address: str) -> Any:
    from vllm.config import KVTransferConfig
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    model = found.name
    layers = found.config.get_text_config(decoder=True).num_hidden_layers
    ours = {
        "model": model,
        "skip_tokenizer_init": True,
        "speculative_config": {
            "method": "extract_hidden_states",
            "num_speculative_tokens": 1,
            "draft_model_config": {"hf_config": {"eagle_aux_hidden_state_layer_ids": [layers]}},
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
        arguments = AsyncEngineArgs(**(defaults | dict(options.arguments) | ours))
        config = arguments.create_engine_config()
    except TypeError as error:
        raise ConfigError(f"vLLM does not know an engine argument: {error}") from error
    except ValueError as error:
        raise ConfigError(f"vLLM cannot be set up so for {model}: {error}") from error
    try:
        return AsyncLLM.from_vllm_config(config, disable_log_stats=True)
    except Exception as error:
        raise ModelError(
            f"vLLM cannot run {model}: {error}; set VLLM_LOGGING_LEVEL=INFO to see its log"
        ) from error


def _info(model: str, found: Found, llm: Any, states: StateSpec) -> EngineInfo:
    config = llm.vllm_config.model_config
    return EngineInfo(
        model_id=model,
        revision=found.revision,
        hidden_size=config.get_hidden_size(),
        num_layers=config.get_total_num_hidden_layers(),
        vocabulary_size=config.get_vocab_size(),
        max_context_tokens=config.max_model_len,
        norm_state="post",
        capabilities=Capabilities(streaming=True, position_seeds=False),
        layer=states.layer,
        pooling=states.pooling,
    )


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Sets variables for the processes that are started within; what the user has set stays."""
    added = {name: value for name, value in values.items() if name not in os.environ}
    if "CUDA_VISIBLE_DEVICES" in values:
        added["CUDA_VISIBLE_DEVICES"] = values["CUDA_VISIBLE_DEVICES"]
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
