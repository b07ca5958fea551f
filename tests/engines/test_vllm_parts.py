"""The parts of the vLLM engine that need no vLLM; the engine itself is held to the contract suite where vLLM is."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
)

from semanticspec.engines.base import LoadRequest, StateSpec
from semanticspec.engines.registry import EngineChoice, side_by_side
from semanticspec.engines.transformers.loading import find_model
from semanticspec.engines.vllm import options as vllm_options
from semanticspec.engines.vllm.final_norm import read_final_norm
from semanticspec.engines.vllm.loop_thread import LoopThread
from semanticspec.engines.vllm.mailbox import Mailbox, Sender
from semanticspec.engines.vllm.options import VllmOptions, check_version
from semanticspec.engines.vllm.patches import _expand
from semanticspec.errors import ConfigError, EngineError, ModelError
from semanticspec.loading import load_model, load_pair

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}


def save(folder: Path, config: PreTrainedConfig, **options: Any) -> Any:
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        if "norm" in name:  # they begin as ones
            torch.nn.init.normal_(parameter)
    model.save_pretrained(folder, **options)
    return model


@pytest.mark.parametrize("shards", [{}, {"max_shard_size": "4KB"}], ids=["one file", "several"])
def test_the_final_norm_is_read_alone(shards: dict[str, str], tmp_path: Path) -> None:
    model = save(tmp_path, LlamaConfig(**SIZES, rms_norm_eps=1e-3), **shards)
    norm = read_final_norm(find_model(str(tmp_path)))
    states = torch.randn(5, 16)
    ours = (states * torch.rsqrt(states.square().mean(-1, keepdim=True) + norm.epsilon)).mean(0) * norm.weight
    torch.testing.assert_close(ours, model.model.norm(states).mean(0))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Gemma2Config(**SIZES, head_dim=8), "final norm of .* is a Gemma2RMSNorm"),
        (GPT2Config(vocab_size=50, n_embd=16, n_layer=1, n_head=2), "final norm of .* is a LayerNorm"),
    ],
    ids=["adds one to its weights", "takes the mean away"],
)
def test_other_norms_are_refused(config: PreTrainedConfig, message: str, tmp_path: Path) -> None:
    save(tmp_path, config)
    with pytest.raises(ModelError, match=message):
        read_final_norm(find_model(str(tmp_path)))


async def test_states_come_by_their_numbers() -> None:
    box = Mailbox()
    try:
        later, first, dropped = box.expect(7), box.expect(2**40), box.expect(8)
        box.forget(8)
        states = torch.randn(3, 5120)

        def post() -> None:
            sender = Sender(box.address)
            for number, state in zip((8, 2**40, 7), states, strict=True):
                sender.post(number, state)
            sender.post(99, states[0])  # of a request that nobody waits for

        await asyncio.to_thread(post)
        assert torch.equal(await asyncio.wait_for(first, 5), states[1])
        assert torch.equal(await asyncio.wait_for(later, 5), states[2])
        assert not dropped.done()
    finally:
        box.close()
    assert not Path(box.address).exists()


def test_a_loop_of_its_own_serves_callers_of_any() -> None:
    thread = LoopThread("test")

    async def where() -> str:
        return threading.current_thread().name

    async def letters(ended: list[bool]) -> AsyncGenerator[str, None]:
        try:
            for letter in "abc":
                yield letter
            raise EngineError("no more letters")
        finally:
            ended.append(True)

    async def caller() -> None:
        assert await thread.run(where()) == "test"
        ended: list[bool] = []
        seen: list[str] = []

        async def read() -> None:
            async for letter in thread.iterate(letters(ended)):
                seen.append(letter)

        with pytest.raises(EngineError, match="no more letters"):
            await read()
        assert seen == ["a", "b", "c"]
        assert ended == [True]
        started, cancelled = threading.Event(), threading.Event()

        async def forever() -> None:
            started.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        task = asyncio.create_task(thread.run(forever()))
        assert await asyncio.to_thread(started.wait, 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(cancelled.wait, 5)

    try:
        for _ in range(2):
            asyncio.run(caller())
        assert thread.wait(where()) == "test"
    finally:
        thread.stop()


def test_values_of_requests_are_spread_over_their_tokens() -> None:
    values, ends = torch.tensor([0.5, 0.0, 0.75]), torch.tensor([2, 3, 3], dtype=torch.int32)
    spread = torch.empty(3)
    _expand(spread, values, ends, 0, 1, MAX_NUM_TOKENS=32)
    assert spread.tolist() == [0.5, 0.5, 1.0]


def test_any_engine_argument_is_passed_on() -> None:
    choice = EngineChoice.parse(
        "vllm:tensor_parallel_size=4,gpu_memory_utilization=0.6,enforce_eager=true,load_format=auto"
    )
    assert choice.options == {
        "tensor_parallel_size": 4,
        "gpu_memory_utilization": 0.6,
        "enforce_eager": True,
        "load_format": "auto",
    }


def test_options_that_cannot_work_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="dtype is 'int4'"):
        VllmOptions(dtype="int4")
    with pytest.raises(ConfigError, match="speculative_config is set by semanticspec itself"):
        VllmOptions(arguments={"speculative_config": {}})
    assert VllmOptions(device="cuda").environment == {}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert VllmOptions(device="cuda:1").environment == {"CUDA_VISIBLE_DEVICES": "1"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert VllmOptions(device="cuda:1").environment == {"CUDA_VISIBLE_DEVICES": "7"}
    with pytest.raises(ConfigError, match="device is 'cuda:2', but CUDA_VISIBLE_DEVICES shows 2 devices"):
        _ = VllmOptions(device="cuda:2").environment


@pytest.mark.parametrize(("found", "right"), [("0.32.0+cpu", True), ("0.31.9", False), ("0.33.0rc1", False)])
def test_versions_that_are_not_known_are_refused(
    found: str, right: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vllm_options, "version", lambda name: found)  # noqa: ARG005
    if right:
        assert check_version() == found
    else:
        with pytest.raises(EngineError, match=rf"vllm {found[:6]}.* is installed; .*>=0.32,<0.33"):
            check_version()


def test_a_missing_vllm_is_told_before_a_model_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise vllm_options.PackageNotFoundError(name)

    monkeypatch.setattr(vllm_options, "version", version)
    with pytest.raises(EngineError, match=r"pip install semanticspec\[vllm\]"):
        load_model("no/such-model", engine="vllm")
    with pytest.raises(EngineError, match=r"pip install semanticspec\[vllm\]"):
        load_pair("no/such-model", "no/such-draft", target_engine="vllm", draft_engine="vllm")


def on_vllm(model: Path, device: str = "auto", **options: Any) -> LoadRequest:
    return EngineChoice("vllm", options).request(str(model), "auto", device, StateSpec())


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(vllm_options, "version", lambda _: "0.32.0")  # sharing does not need it to be there
    save(tmp_path / "large", LlamaConfig(**SIZES | {"vocab_size": 200, "num_hidden_layers": 6}))
    return tmp_path / "large"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    save(tmp_path / "small", LlamaConfig(**SIZES))
    return tmp_path / "small"


def shares(*requests: LoadRequest) -> list[float | None]:
    return [request.options.get("gpu_memory_utilization") for request in side_by_side(*requests)]


def test_two_models_share_a_device_by_their_weights(large: Path, small: Path) -> None:
    sizes = [AutoModelForCausalLM.from_pretrained(folder).num_parameters() for folder in (large, small)]
    wanted = 0.9 * sizes[1] / sum(sizes)
    assert wanted > 0.1
    found = shares(on_vllm(large), on_vllm(small))
    assert found == [pytest.approx(0.9 - wanted, abs=1e-3), pytest.approx(wanted, abs=1e-3)]
    assert shares(on_vllm(small), on_vllm(large)) == found[::-1]
    # On two GPUs each, a quarter of the smaller one's share is left, which is too little for a cache.
    assert shares(on_vllm(large), on_vllm(small, tensor_parallel_size=4)) == [0.8, 0.1]


def test_a_share_that_is_given_leaves_the_rest_to_the_other_model(large: Path, small: Path) -> None:
    assert shares(on_vllm(large, gpu_memory_utilization=0.7), on_vllm(small)) == [0.7, 0.2]
    assert shares(on_vllm(large), on_vllm(small, gpu_memory_utilization=0.3)) == [0.6, 0.3]
    given = on_vllm(large, gpu_memory_utilization=0.6), on_vllm(small, gpu_memory_utilization=0.35)
    assert shares(*given) == [0.6, 0.35]


@pytest.mark.parametrize(
    ("of_target", "of_draft"),
    [
        ({"device": "cuda:0"}, {"device": "cuda:1"}),
        ({"tensor_parallel_size": 4}, {"device": "cuda:4"}),
        ({"kv_cache_memory_bytes": 1 << 30}, {}),
    ],
)
def test_models_that_are_not_in_each_others_way_get_no_shares(
    of_target: dict[str, Any], of_draft: dict[str, Any], large: Path, small: Path
) -> None:
    requests = on_vllm(large, **of_target), on_vllm(small, **of_draft)
    assert side_by_side(*requests) == requests


@pytest.mark.parametrize("given", [(0.8, 0.3), (0.9, None)])
def test_shares_that_do_not_fit_are_refused(
    given: tuple[float, float | None], large: Path, small: Path
) -> None:
    both = [{} if share is None else {"gpu_memory_utilization": share} for share in given]
    with pytest.raises(ConfigError, match=r"do not fit beside each other; .* or a device each"):
        side_by_side(on_vllm(large, **both[0]), on_vllm(small, **both[1]))
