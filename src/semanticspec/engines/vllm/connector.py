"""A connector inside vLLM's processes: pools a finished request's hidden states, and sends the result to us.

vLLM's method `extract_hidden_states` keeps the last layer's output, before the final norm, of every token, in blocks
beside the KV cache; prefix caching therefore covers it. This connector reads these blocks when a request has finished.
A final RMSNorm divides each state by its root mean square and multiplies all by the same weight. The former is done
here, the latter, being linear, after pooling by the receiver (`final_norm`).

Written for vLLM 0.32; `options` checks the version.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from vllm.config import get_layers_from_vllm_config
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorMetadata, KVConnectorRole
from vllm.distributed.kv_transfer.kv_connector.v1.example_hidden_states_connector import (
    ExampleHiddenStatesConnector,
    extract_from_kv_cache,
)

from semanticspec.engines.vllm.mailbox import Sender
from semanticspec.engines.vllm.patches import patch_sampler

PARAMETERS = "semanticspec"
"""Key in a request's `kv_transfer_params`. Its value has the `number` to send the pooled state under, the `first`
position to pool, the `count` of positions (None = up to the last but one token), and the `pooling`."""


@dataclass
class Finished:
    """A finished request, on its way from the scheduler to the worker."""

    request_id: str
    block_ids: list[int]
    number: int
    positions: range
    pooling: str


@dataclass
class Metadata(KVConnectorMetadata):  # type: ignore[misc]
    """What the scheduler sends to the worker in one step."""

    finished: list[Finished] = field(default_factory=list)


class PooledStatesConnector(ExampleHiddenStatesConnector):  # type: ignore[misc]
    """Sends one pooled vector per request, where vLLM's example connector writes all states to a file."""

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        extra = vllm_config.kv_transfer_config.kv_connector_extra_config
        self._epsilon = float(extra["epsilon"])
        self._address = str(extra["address"])
        self._finished: list[Finished] = []  # in the scheduler
        self._sender: Sender | None = None  # in the worker that sends

    # Scheduler side.

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        """Keeps the request's blocks until the worker has read them."""
        asked = (request.kv_transfer_params or {}).get(PARAMETERS)
        if asked is None or not block_ids:
            return False, None
        first, count = asked["first"], asked["count"]
        end = request.num_tokens - 1 if count is None else first + count
        if end <= first or end > len(block_ids) * self._block_size:
            return False, None  # aborted before its prefill was complete
        self._finished.append(
            Finished(
                request.request_id, list(block_ids), asked["number"], range(first, end), asked["pooling"]
            )
        )
        return True, None

    def build_connector_meta(self, scheduler_output: Any) -> Metadata:
        metadata, self._finished = Metadata(self._finished), []
        return metadata

    # Worker side.

    def register_kv_caches(self, kv_caches: dict[str, Tensor]) -> None:
        from vllm.model_executor.models.extract_hidden_states import CacheOnlyAttentionLayer

        if not get_layers_from_vllm_config(self._vllm_config, CacheOnlyAttentionLayer, list(kv_caches)):
            return  # an earlier pipeline stage; the last one has the states
        super().register_kv_caches(kv_caches)
        patch_sampler()
        if self._is_tp_rank_zero:
            self._sender = Sender(self._address)

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:
        """Sends the pooled states of finished requests; their blocks may then be freed."""
        if self._sender is None or not self.has_connector_metadata():
            return None, None
        metadata = self._get_connector_metadata()
        assert isinstance(metadata, Metadata)
        for finished in metadata.finished:
            self._sender.post(finished.number, self._pooled(finished))
        return {finished.request_id for finished in metadata.finished} or None, None

    def _pooled(self, finished: Finished) -> Tensor:
        """Pools the normalized states, without the norm's weight."""
        positions = torch.arange(finished.positions.start, finished.positions.stop)
        if finished.pooling == "last":
            positions = positions[-1:]
        blocks = torch.tensor(finished.block_ids)[positions // self._block_size]
        slots = (blocks * self._block_size + positions % self._block_size).to(self._kv_cache.device)
        states = extract_from_kv_cache(self._kv_cache, slots, len(positions))[:, 0].float()
        inverse_rms = torch.rsqrt(states.square().mean(-1, keepdim=True) + self._epsilon)
        mean: Tensor = (states * inverse_rms).mean(0).cpu()
        return mean
