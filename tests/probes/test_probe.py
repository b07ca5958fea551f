"""A probe: its files, its estimates, and which engines it accepts."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch

from semanticspec import demo, generate
from semanticspec.engines.base import Capabilities, EngineInfo, StateSpec
from semanticspec.errors import ConfigError, ProbeError
from semanticspec.loading import load_pair
from semanticspec.probes import Probe
from semanticspec.probes.card import DraftInputs, ProbePooling
from semanticspec.probes.probe import network_of
from semanticspec.probes.registry import fitting
from semanticspec.records import Reading
from tests.support.collecting import (
    HIDDEN,
    info,
    make_card,
    make_probe,
    make_reading,
    make_untrained_probe,
    unpooled_reading,
)


def test_import_loads_no_torch() -> None:
    code = "import sys, semanticspec.probes, semanticspec.commands.probe; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


@pytest.mark.parametrize("changes", [{}, {"features": ()}, {"use_state": False}, {"widths": (16, 8, 4)}])
def test_save_and_load_give_the_same_probe(tmp_path: Path, changes: dict[str, Any]) -> None:
    probe = make_probe(**changes)
    probe.network.fit_scaler(torch.randn(50, probe.network.num_inputs) * 3 + 1)
    probe.save(tmp_path / "probe")
    loaded = Probe.load(tmp_path / "probe")
    assert replace(loaded.card, weights_digest="") == probe.card
    readings = [make_reading(seed) for seed in range(10)]
    assert loaded.estimate_many(readings) == probe.estimate_many(readings)
    assert sorted(path.name for path in (tmp_path / "probe").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]


POOLINGS: tuple[ProbePooling, ...] = get_args(ProbePooling)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("layer", [-1, 2])
def test_save_and_load_keep_layer_and_pooling(tmp_path: Path, pooling: ProbePooling, layer: int) -> None:
    probe = make_untrained_probe(pooling=pooling, layer=layer, norm_state="post" if layer < 0 else "pre")
    probe.save(tmp_path)
    loaded = Probe.load(tmp_path)
    assert replace(loaded.card, weights_digest="") == probe.card
    readings = [unpooled_reading(seed, 1 + seed) for seed in range(6)]
    assert loaded.estimate_many(readings) == probe.estimate_many(readings)
    assert len(set(probe.estimate_many(readings))) == 6


def test_estimates_agree_alone_and_together_and_are_clamped() -> None:
    probe = make_probe()
    readings = [make_reading(seed) for seed in range(10)]
    together = probe.estimate_many(readings)
    assert together == pytest.approx([probe.estimate(reading) for reading in readings], abs=1e-6)
    last = probe.network.layers[-1]
    assert isinstance(last, torch.nn.Linear)
    last.bias.fill_(-100.0)
    assert probe.estimate(readings[0]) == 1 / 40
    last.bias.fill_(100.0)
    assert probe.estimate(readings[0]) == 1.0
    assert probe.estimate_many([]) == []


def test_a_probe_needs_nothing_but_a_reading() -> None:
    """Any object with the two fields will do, such as another engine's own."""
    reading = SimpleNamespace(logprobs=(-1.0, -2.0), pooled_state=torch.zeros(HIDDEN))
    assert 0 < make_probe().estimate(reading) <= 1  # type: ignore[arg-type]


@pytest.mark.parametrize("pooling", POOLINGS)
def test_states_that_no_engine_has_pooled_are_pooled_by_the_probe(pooling: ProbePooling) -> None:
    probe, readings = (
        make_untrained_probe(pooling=pooling),
        [unpooled_reading(seed, 2 + seed) for seed in range(5)],
    )
    network = probe.network
    for reading, estimate in zip(readings, probe.estimate_many(readings), strict=True):
        states = reading.pooled_state
        if pooling == "attention":
            assert network.query is not None
            scores = ((states - network.mean[:HIDDEN]) / network.scale[:HIDDEN]) @ network.query
            by_hand = (scores.softmax(0)[:, None] * states).sum(0)
        else:
            by_hand = states.mean(0) if pooling == "mean" else states[-1]
        twin = Probe(replace(probe.card, pooling="mean"), network_of(replace(probe.card, pooling="mean")))
        weights = {name: value for name, value in network.state_dict().items() if name != "query"}
        twin.network.load_state_dict(weights)
        pooled = replace(reading, pooled_state=by_hand)
        assert twin.estimate(pooled) == pytest.approx(estimate, abs=1e-6)
        assert probe.estimate(reading) == pytest.approx(estimate, abs=1e-6)
        if pooling != "attention":
            assert probe.estimate(pooled) == pytest.approx(estimate, abs=1e-6)


def test_a_state_of_another_size_is_refused() -> None:
    with pytest.raises(ProbeError, match="size 6"):
        make_probe().estimate(Reading((-1.0,), torch.zeros(7)))


def test_attention_needs_every_state() -> None:
    with pytest.raises(ProbeError, match=r"every state of a segment.*StateSpec\(pooling='none'\)"):
        make_untrained_probe(pooling="attention").estimate(make_reading())
    with pytest.raises(ProbeError, match="size 6"):
        make_untrained_probe().estimate(replace(make_reading(), pooled_state=torch.zeros(3, HIDDEN + 1)))


def test_a_probe_of_entropies_is_refused_where_there_are_none() -> None:
    probe = make_probe(role="target", features=("mean", "entropy"))
    gives = info(capabilities=Capabilities(entropies=True))
    assert probe.check(gives, probe.card.fingerprint, "target") == []
    with pytest.raises(ProbeError, match="reads entropies, which the engine of some/model does not give"):
        probe.check(info(), probe.card.fingerprint, "target")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": 7}, "hidden size 6 instead of 7"),
        ({"num_layers": 3}, "number of layers 2 instead of 3"),
        ({"norm_state": "pre"}, "norm state post instead of pre"),
    ],
)
def test_check_names_what_differs(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ProbeError, match=said) as caught:
        make_probe().check(info(**changes), "f00d", "target")
    assert "\n" not in str(caught.value)


def test_check_of_tokenizer_role_and_weights() -> None:
    probe = make_probe()
    assert probe.check(info(model_id="/elsewhere"), "f00d", "target") == []
    assert probe.check(info(revision=""), "f00d", "target") == []
    (warning,) = probe.check(info(revision="def"), "f00d", "target")
    assert "abc" in warning
    with pytest.raises(ProbeError, match="tokenizer"):
        probe.check(info(), "beef", "target")
    with pytest.raises(ProbeError, match="role"):
        probe.check(info(), "f00d", "draft")


@pytest.mark.parametrize(
    ("card", "engine", "said"),
    [
        ({"layer": 2, "norm_state": "pre"}, {}, "layer 2 instead of -1"),
        ({}, {"layer": 1, "norm_state": "pre"}, "layer -1 instead of 1"),
        ({"pooling": "last"}, {}, "pooling last instead of mean"),
        ({}, {"pooling": "last"}, "pooling mean instead of last"),
        ({"pooling": "attention"}, {"pooling": "last"}, "pooling attention instead of last"),
    ],
)
def test_an_engine_with_other_states_is_refused(
    card: dict[str, Any], engine: dict[str, Any], said: str
) -> None:
    probe = make_untrained_probe(**card)
    info = replace(EngineInfo("some/model", "abc", HIDDEN, 2, 100, 512), **engine)
    with pytest.raises(ProbeError, match=rf"{said}; load the engine with states=StateSpec\(") as caught:
        probe.check(info, "f00d", "target")
    assert "train a probe" not in str(caught.value)
    right = replace(info, **vars_of(probe.card.states), norm_state=probe.card.norm_state)
    assert probe.check(right, "f00d", "target") == []
    every_state = replace(right, pooling="none")
    assert probe.check(every_state, "f00d", "target") == []
    without_state = make_untrained_probe(**card, use_state=False)
    assert without_state.check(info, "f00d", "target") == []
    with pytest.raises(ProbeError, match="train a probe for it"):
        probe.check(replace(info, hidden_size=7), "f00d", "target")


def vars_of(states: StateSpec) -> dict[str, Any]:
    return {"layer": states.layer, "pooling": states.pooling}


def test_broken_folders_are_told(tmp_path: Path) -> None:
    with pytest.raises(ProbeError, match="no probe folder"):
        Probe.load(tmp_path / "nowhere")
    folder = tmp_path / "probe"
    make_probe().save(folder)
    weights, card = (
        (folder / "model.safetensors").read_bytes(),
        json.loads((folder / "config.json").read_text()),
    )

    def load_with(**content: Any) -> Any:
        (folder / "config.json").write_text(json.dumps({**card, **content}))
        return Probe.load(folder)

    for changed, said in (
        ({"format": 2}, "update semanticspec"),
        ({"colour": "red"}, "unknown key colour; expected one of role, model_id"),
        ({"widths": "wide"}, "widths is 'wide'; expected a valid array"),
        ({"widths": [0]}, "widths.0 is 0; expected greater than or equal to 1"),
        ({"num_samples": 1}, "num_samples is 1; expected greater than or equal to 2"),
        ({"role": "judge"}, "role is 'judge'; expected 'draft' or 'target'"),
        ({"features": ["smell"]}, "unknown probe feature 'smell'"),
        ({"widths": [9, 4]}, "does not hold the network"),
        ({"weights_digest": "0"}, "not the file"),
    ):
        with pytest.raises(ProbeError, match=said) as caught:
            load_with(**changed)
        assert str(folder) in str(caught.value)
        assert "\n" not in str(caught.value)
    load_with()
    (folder / "model.safetensors").write_bytes(weights[:100])
    with pytest.raises(ProbeError, match="broken or replaced"):
        Probe.load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ProbeError, match="JSON"):
        Probe.load(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ProbeError, match=r"config\.json cannot be read"):
        Probe.load(folder)


def test_a_pair_is_loaded_with_the_states_its_probes_read(tmp_path: Path) -> None:
    card = Probe.load(demo.target_probe_path()).card
    inner = replace(card, layer=8, norm_state="pre", pooling="attention", calibration="none")
    Probe(inner, network_of(inner)).save(tmp_path / "inner")
    pair = load_pair(target_probe=str(tmp_path / "inner"))
    info = pair.target.engine.info
    assert (info.layer, info.pooling, info.norm_state) == (8, "none", "pre")
    assert vars_of(StateSpec()) == {"layer": pair.draft.engine.info.layer, "pooling": "mean"}
    (score,) = asyncio.run(pair.target.engine.score([5, 6], [[7, 8, 9]], signals=True))
    assert score.pooled_state.shape == (3, card.hidden_size)
    assert pair.target_probe is not None
    assert 0 < pair.target_probe.estimate(score) < 1
    asyncio.run(pair.aclose())
    # The packaged probe would fit this model, had it been loaded for that one.
    assert list(fitting(info, card.fingerprint, "target")) == ["bundled"]
    with pytest.raises(
        ProbeError, match=r"layer 8 instead of 2.*load the engine with states=StateSpec\(layer=8"
    ):
        load_pair(target_probe=str(tmp_path / "inner"), target_states=StateSpec(2, "none"))


def test_a_joint_probe_is_loaded_with_its_draft(tmp_path: Path) -> None:
    cards = [Probe.load(path).card for path in (demo.target_probe_path(), demo.draft_probe_path())]
    names = ("model_id", "revision", "hidden_size", "num_layers", "norm_state", "fingerprint")
    draft = DraftInputs(**{name: getattr(cards[1], name) for name in names})
    features = ("sum", "new_numbers", "difference_minimum")
    joint = replace(cards[0], draft=draft, features=features, components=0, widths=(8,), calibration="none")
    Probe(joint, network_of(joint)).save(tmp_path / "joint")
    loaded = Probe.load(tmp_path / "joint")
    assert replace(loaded.card, weights_digest="") == replace(joint, weights_digest="")
    pair = load_pair(target_probe=str(tmp_path / "joint"))
    result = generate(pair, "12+7", max_new_tokens=40)
    assert any(segment.reason == "semantic" for segment in result.segments)
    asyncio.run(pair.aclose())
    other = replace(joint, draft=replace(draft, num_layers=99))
    Probe(other, network_of(other)).save(tmp_path / "other")
    with pytest.raises(
        ProbeError, match=r"joint probe was made for the draft .* number of layers 99 instead of"
    ):
        load_pair(target_probe=str(tmp_path / "other"))


def test_cards_of_joint_probes(tmp_path: Path) -> None:
    draft = DraftInputs("some/draft", "", 4, 1, "post", "beef")
    probe = make_untrained_probe(draft=draft)
    assert probe.card.num_state == HIDDEN + 4
    assert probe.card.draft_states == StateSpec()
    assert make_card(draft=replace(draft, use_state=False)).draft_states is None
    for changes in ({"role": "draft"}, {"use_state": False}, {"pooling": "attention"}):
        with pytest.raises(ConfigError):
            make_card(**{"draft": draft, **changes})
    probe.save(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    assert content["draft"]["model_id"] == "some/draft"
    make_probe().save(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    del content["draft"]  # as earlier versions wrote it
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert Probe.load(tmp_path).card.draft is None
