"""Hidden states of all layers and poolings, against `hidden_states` of transformers. Tolerance: see test_generation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from semanticspec.engines.base import Engine, StateSpec
from semanticspec.engines.runtime.pooling import StatePool, pooled
from semanticspec.engines.scripted import ScriptedEngine
from semanticspec.engines.transformers.engine import TransformersEngine
from semanticspec.errors import ConfigError
from semanticspec.records import Sampling, Stop
from tests.support.subjects import CONFIGS, VOCABULARY, load, load_llama_cpp, load_vllm, scripted_subject

CONTEXT = [3, 14, 15, 9, 26, 5, 35, 8]
SEGMENT = [9, 7, 9, 3, 23, 8, 46, 2, 6, 43]
SAMPLING = Sampling(temperature=0.8, top_p=0.9)
TOLERANCE = 1e-4
SPECS = [StateSpec(1, "mean"), StateSpec(1, "none"), StateSpec(-1, "last"), StateSpec(-1, "none")]
ALL_LAYERS_OUT = StateSpec(2, "last")  # before the final norm, which is not in `hidden_states`
StatesOf = Callable[[Sequence[int]], Tensor]


def oracle(folder: Path, layer: int) -> StatesOf:
    """Returns a function from ids to the states `[len(ids), hidden]` of a layer."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    if layer == model.config.num_hidden_layers:
        base = model.base_model
        (base.h if hasattr(base, "h") else base.layers)[-1].register_forward_hook(
            lambda _module, _arguments, output: seen.append(
                output if isinstance(output, Tensor) else output[0]
            )
        )
    seen: list[Any] = []

    def states(ids: Sequence[int]) -> Tensor:
        with torch.no_grad():
            output = model(torch.tensor([list(ids)]), output_hidden_states=True, use_cache=False)
        return seen.pop()[0] if seen else output.hidden_states[layer][0]

    return states


def check(
    pooled_state: Tensor, states: StatesOf, context: list[int], continuation: Sequence[int], spec: StateSpec
) -> None:
    predicting = states([*context, *continuation])[len(context) - 1 : len(context) + len(continuation) - 1]
    if spec.pooling != "none":
        predicting = predicting.mean(0) if spec.pooling == "mean" else predicting[-1]
    assert pooled_state.dtype == torch.float32
    torch.testing.assert_close(pooled_state, predicting, atol=TOLERANCE, rtol=0)


async def check_engine(engine: Engine, states: StatesOf, spec: StateSpec) -> None:
    """Checks cold, warm and batched calls, and rows that end at different times."""
    stop = Stop(ids=frozenset(range(0, VOCABULARY, 6)))
    options: Any = {"stop": stop, "sampling": SAMPLING, "seed": 4}
    (alone,) = await engine.generate(CONTEXT, max_tokens=9, stop=Stop(), sampling=SAMPLING)
    check(alone.pooled_state, states, CONTEXT, alone.token_ids, spec)
    several = await engine.generate(CONTEXT, n=7, max_tokens=20, **options)
    assert len({len(one.token_ids) for one in several}) >= 3, "the test needs rows of different lengths"
    for one in several:
        check(one.pooled_state, states, CONTEXT, one.token_ids, spec)
    for _ in range(2):  # the second uses the prefix cache
        (score,) = await engine.score(CONTEXT, [SEGMENT])
        check(score.pooled_state, states, CONTEXT, SEGMENT, spec)
    (after,) = await engine.generate([*CONTEXT, *SEGMENT], max_tokens=5, stop=Stop(), sampling=SAMPLING)
    check(after.pooled_state, states, [*CONTEXT, *SEGMENT], after.token_ids, spec)
    rows = [SEGMENT, SEGMENT[:1], [1, 2, 3]]
    for score, row in zip(await engine.score(CONTEXT, rows), rows, strict=True):
        check(score.pooled_state, states, CONTEXT, row, spec)
    torch.nn.Linear(engine.info.hidden_size, 1)(score.pooled_state).sum().backward()  # can be trained on


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("name", CONFIGS)
async def test_states_equal_those_of_transformers(
    name: str, spec: StateSpec, model_folders: dict[str, Path]
) -> None:
    engine = load(model_folders[name], states=spec)
    assert (engine.info.layer, engine.info.pooling) == (spec.layer, spec.pooling)
    assert engine.info.norm_state == ("post" if spec.layer == -1 else "pre")
    await check_engine(engine, oracle(model_folders[name], spec.layer), spec)


@pytest.mark.parametrize("pooling", ["mean", "last", "none"])
async def test_llama_cpp_returns_the_last_layers_states(
    pooling: Any, llama_file: Path, model_folders: dict[str, Path]
) -> None:
    spec = StateSpec(pooling=pooling)
    engine = load_llama_cpp(llama_file, states=spec)
    assert (engine.info.layer, engine.info.pooling, engine.info.norm_state) == (-1, pooling, "post")
    await check_engine(engine, oracle(model_folders["llama"], -1), spec)


@pytest.mark.parametrize("pooling", ["mean", "last"])
async def test_vllm_returns_the_last_layers_states(pooling: Any, model_folders: dict[str, Path]) -> None:
    pytest.importorskip("vllm")
    spec = StateSpec(pooling=pooling)
    engine = load_vllm(model_folders["vllm"], states=spec)
    try:
        await check_engine(engine, oracle(model_folders["vllm"], -1), spec)
    finally:
        await engine.aclose()


@pytest.mark.parametrize("spec", [StateSpec(1), StateSpec(pooling="none")])
def test_vllm_refuses_other_states(spec: StateSpec, model_folders: dict[str, Path]) -> None:
    pytest.importorskip("vllm")
    with pytest.raises(ConfigError, match="the engine vllm gives"):
        load_vllm(model_folders["vllm"], states=spec)


def test_llama_cpp_refuses_other_layers(llama_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"layer is 1, but llama\.cpp gives the last layer's"):
        load_llama_cpp(llama_file, states=StateSpec(1))


@pytest.mark.parametrize("name", ["llama", "granite-scaled", "gpt2"])
async def test_the_last_layer_before_the_final_norm(name: str, model_folders: dict[str, Path]) -> None:
    engine = load(model_folders[name], states=ALL_LAYERS_OUT)
    await check_engine(engine, oracle(model_folders[name], 2), ALL_LAYERS_OUT)


@pytest.mark.parametrize("pooling", ["mean", "last", "none"])
async def test_the_scripted_engine_pools_too(pooling: Any) -> None:
    spec = StateSpec(pooling=pooling)
    subject = scripted_subject()
    engine = ScriptedEngine(subject.engine._next, VOCABULARY, states=spec)  # type: ignore[attr-defined]
    assert engine.info.pooling == pooling
    await check_engine(engine, subject.states, spec)


async def test_the_selected_states_do_not_change_the_text(model_folders: dict[str, Path]) -> None:
    for name in ("llama", "granite-scaled"):
        texts, logprobs = [], []
        for spec in (StateSpec(), StateSpec(1, "none")):
            engine = load(model_folders[name], states=spec)
            (one,) = await engine.generate(CONTEXT, max_tokens=20, stop=Stop(), sampling=SAMPLING, seed=2)
            (score,) = await engine.score(
                [*CONTEXT, *one.token_ids], [SEGMENT], sampling=SAMPLING, signals=True
            )
            texts.append((one.token_ids, score.next_token_id, score.ranks))
            logprobs.append(one.logprobs + score.logprobs)
        assert texts[0] == texts[1]
        torch.testing.assert_close(*map(torch.tensor, logprobs), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("pooling", ["mean", "last", "none"])
def test_a_pool_equals_pooling_each_row_alone(pooling: Any) -> None:
    states = torch.randn(6, 4, 3)  # positions, rows, hidden
    pool, rows = StatePool(pooling), torch.arange(4)
    for end, kept in enumerate(([3, 1, 0], [0, 1, 2], [2, 0], [0, 1], [1], [0])):
        pool.add(states[end][rows])
        pool.select_rows(torch.tensor(kept))
        rows = rows[kept]
        for index, row in enumerate(rows):
            expected = pooled(states[: end + 1, row], pooling)
            torch.testing.assert_close(pool.row(index), expected)


@pytest.mark.parametrize("layer", [0, 3, -2])
def test_missing_layers_are_refused(layer: int, model_folders: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=rf"layer is {layer}; expected -1 .* layers 1 to 2"):
        load(model_folders["llama"], states=StateSpec(layer))


def test_unknown_poolings_and_inner_layers_of_the_scripted_engine_are_refused() -> None:
    with pytest.raises(ConfigError, match="'attention'; expected one of mean, last, none"):
        StateSpec(pooling="attention")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="layer is 1; expected -1"):
        ScriptedEngine(lambda _: [1.0], 1, states=replace(StateSpec(), layer=1))


def test_the_last_layer_needs_no_hook(model_folders: dict[str, Path]) -> None:
    """For plain models, the pooled states are the head's input."""
    engine: TransformersEngine = load(model_folders["llama"])
    output = engine._runner.forward(engine._runner.tokens([1, 2]), engine._runner.new_cache())
    assert output.logit_source is None
