"""What runs inside vLLM's processes: pools a finished request's states and posts the result.

vLLM's method `extract_hidden_states` keeps the last layer's output, before the final norm, of every token it has read,
in blocks beside the keys and values, so prefix caching holds for them too. This connector reads them from there once a
request is finished. A final RMSNorm scales each state by its own length and all of them by the same weights: the first
is done here, token by token, the second by whoever gets the mean (`vllm_norm`).

Written for vLLM 0.32; see `vllm_options` for the range that is accepted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
    SupportsHMA,
)
from vllm.distributed.kv_transfer.kv_connector.v1.example_hidden_states_connector import (
    ExampleHiddenStatesConnector,
    extract_from_kv_cache,
)

from semanticspec.engines.vllm.mailbox import Sender
from semanticspec.engines.vllm.patches import mend_expansion

PARAMETERS = "semanticspec"
"""The key of a request's `kv_transfer_params` under which it says what to pool: the `number` to post the state under,
the `first` predicting position, the `count` of them (None = up to the last token but one), and the `pooling`."""


@dataclass
class Finished:
    """A finished request on its way from the scheduler to the worker."""

    request_id: str
    block_ids: list[int]
    number: int
    positions: range
    pooling: str


@dataclass
class Metadata(KVConnectorMetadata):  # type: ignore[misc]
    finished: list[Finished] = field(default_factory=list)


class PooledStatesConnector(KVConnectorBase_V1, SupportsHMA):  # type: ignore[misc]
    """Loads nothing, saves nothing: posts one vector a request."""

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        stock = ExampleHiddenStatesConnector
        self._group = stock._find_cache_kv_group_id(kv_cache_config)
        self._block_size = stock._get_cache_block_size(vllm_config, kv_cache_config, self._group)
        extra = vllm_config.kv_transfer_config.kv_connector_extra_config
        self._epsilon = float(extra["epsilon"])
        self._address = str(extra["address"])
        self._finished: list[Finished] = []
        self._sender: Sender | None = None
        self._states: Tensor | None = None
        self._posts = False

    # In the scheduler.

    def get_finished_count(self) -> int:
        """Only the first worker tells that a request's blocks can go."""
        return 1

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int, bool]:
        return 0, False

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        pass

    def request_finished_all_groups(
        self, request: Any, block_ids: tuple[list[int], ...]
    ) -> tuple[bool, dict[str, Any] | None]:
        if self._group >= len(block_ids):
            return False, None  # ended before it was ever scheduled
        return self.request_finished(request, block_ids[self._group])

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        """Keeps the blocks until the worker has read them."""
        asked = (request.kv_transfer_params or {}).get(PARAMETERS)
        if asked is None or not block_ids:
            return False, None
        first, count = asked["first"], asked["count"]
        end = request.num_tokens - 1 if count is None else first + count
        if end <= first or end > len(block_ids) * self._block_size:
            return False, None  # aborted before it had read them
        self._finished.append(
            Finished(
                request.request_id, list(block_ids), asked["number"], range(first, end), asked["pooling"]
            )
        )
        return True, None

    def build_connector_meta(self, scheduler_output: Any) -> Metadata:
        metadata, self._finished = Metadata(self._finished), []
        return metadata

    # In the worker.

    def register_kv_caches(self, kv_caches: dict[str, Tensor]) -> None:
        from vllm.config import get_layers_from_vllm_config
        from vllm.distributed.parallel_state import get_tensor_model_parallel_rank
        from vllm.model_executor.models.extract_hidden_states import CacheOnlyAttentionLayer

        layers = get_layers_from_vllm_config(self._vllm_config, CacheOnlyAttentionLayer, list(kv_caches))
        if not layers:
            return  # another stage of the pipeline: the last one has the states
        (name,) = layers
        self._states = kv_caches[name]
        if self._states.shape[2] != self._block_size:
            raise ValueError(
                f"vLLM keeps states in blocks of {self._states.shape[2]}, {self._block_size} were told"
            )
        mend_expansion()
        self._posts = get_tensor_model_parallel_rank() == 0
        if self._posts:
            self._sender = Sender(self._address)

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:
        """Posts what has finished; its blocks may go then."""
        if not self._posts or not self.has_connector_metadata():
            return None, None
        metadata = self._get_connector_metadata()
        assert isinstance(metadata, Metadata)
        assert self._sender is not None
        for finished in metadata.finished:
            self._sender.post(finished.number, self._pooled(finished))
        return {finished.request_id for finished in metadata.finished} or None, None

    def _pooled(self, finished: Finished) -> Tensor:
        """The mean of the normalised states, or the last of them, without the norm's weights."""
        assert self._states is not None
        positions = torch.arange(finished.positions.start, finished.positions.stop)
        if finished.pooling == "last":
            positions = positions[-1:]
        blocks = torch.tensor(finished.block_ids)[positions // self._block_size]
        slots = (blocks * self._block_size + positions % self._block_size).to(self._states.device)
        states = extract_from_kv_cache(self._states, slots, len(positions))[:, 0].float()
        lengths = torch.rsqrt(states.square().mean(-1, keepdim=True) + self._epsilon)
        mean: Tensor = (states * lengths).mean(0).cpu()
        return mean

    def start_load_kv(self, *_: Any, **__: Any) -> None:
        pass

    def wait_for_layer_load(self, layer_name: str) -> None:
        pass

    def save_kv_layer(self, *_: Any, **__: Any) -> None:
        pass

    def wait_for_save(self) -> None:
        pass

    @classmethod
    def get_required_kvcache_layout(cls, vllm_config: Any) -> str | None:
        layout: str | None = ExampleHiddenStatesConnector.get_required_kvcache_layout(vllm_config)
        return layout
