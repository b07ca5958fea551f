"""The probe's network: principal components and attention."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sklearn.decomposition import PCA

from semanticspec.errors import ConfigError
from semanticspec.probes import Probe
from semanticspec.probes.network import ProbeNetwork
from semanticspec.probes.probe import network_of
from semanticspec.probes.states import RaggedInputs
from semanticspec.training.train import (
    TrainConfig,
    inputs_of,
)
from tests.support.collecting import (
    HIDDEN,
    make_card,
    with_a_marked_position,
)


def test_components_are_the_principal_ones(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(300, HIDDEN + 1, generator=generator) @ torch.randn(7, 7, generator=generator)
    network = ProbeNetwork(HIDDEN + 1, (4,), num_state=HIDDEN, components=2)
    network.fit_scaler(inputs)
    assert network.projection is not None
    scaled = ((inputs - network.mean) / network.scale)[:, :HIDDEN]
    mine = network.projection(scaled).detach()
    theirs = torch.from_numpy(PCA(2, whiten=True).fit_transform(scaled.numpy()))
    assert torch.allclose(mine.abs(), theirs.abs().float(), atol=0.02)
    card = make_card(features=("mean",), widths=(4,), components=2)
    Probe(card, network).save(tmp_path)
    loaded = Probe.load(tmp_path)
    assert torch.equal(loaded.network(inputs), network(inputs))
    assert loaded.card.estimator == "components"
    with pytest.raises(ConfigError, match="components"):
        make_card(components=HIDDEN + 1)


def test_attention_begins_as_the_mean_and_is_fitted_by_every_state() -> None:
    examples = with_a_marked_position(5)
    config = TrainConfig(widths=(4,), pooling="attention")
    inputs, means = inputs_of(examples, config), inputs_of(examples, replace(config, pooling="mean"))
    assert isinstance(inputs, RaggedInputs)
    networks = [network_of(make_card(features=(), pooling=pooling)) for pooling in ("attention", "mean")]
    networks[1].load_state_dict({k: v for k, v in networks[0].state_dict().items() if k != "query"})
    for network, read in zip(networks, (inputs, means), strict=True):
        network.eval().fit_scaler(read)
    torch.testing.assert_close(networks[0](inputs), networks[1](means))
    networks[0](inputs).sum().backward()
    assert networks[0].query is not None
    assert networks[0].query.grad is not None
    assert networks[0].query.grad.abs().sum() > 0
