"""Other layers and other poolings, from a collection to a pair that is loaded with the probe."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, get_args

import pyarrow.parquet
import pytest
import torch
from typer.testing import CliRunner

from semanticspec import demo
from semanticspec.commands.probe import probe_app
from semanticspec.decoding.pair import Model, Pair
from semanticspec.demo.judge import ExactJudge
from semanticspec.engines.base import EngineInfo, StateSpec
from semanticspec.engines.scripted import ScriptedEngine
from semanticspec.errors import ConfigError, ProbeError
from semanticspec.loading import load_pair
from semanticspec.probes import Probe
from semanticspec.probes.card import ProbePooling
from semanticspec.probes.features import TokenSignals
from semanticspec.probes.probe import network_of
from semanticspec.probes.registry import fitting, packaged_probes
from semanticspec.probes.states import Ragged, RaggedInputs, concatenated
from semanticspec.records import Reading
from semanticspec.training.ablations import Retraining, num_variants
from semanticspec.training.data.collect import collect
from semanticspec.training.data.examples import Examples, gather
from semanticspec.training.data.problems import ProblemText
from semanticspec.training.data.storage import Collection
from semanticspec.training.evaluate import judge_rows
from semanticspec.training.labels.label import label, read_meanings
from semanticspec.training.metrics import area_under_roc, point_estimate
from semanticspec.training.pipeline import run
from semanticspec.training.publish import publish
from semanticspec.training.settings import parse_settings
from semanticspec.training.train import TrainConfig, fit, inputs_of, logits_of, pooling_of, train
from tests.support.collecting import (
    CONFIG,
    HIDDEN,
    make_card,
    make_pair,
    make_reading,
    make_vocabulary,
    next_probabilities,
)
from tests.support.demo_problems import write_problems

POOLINGS: tuple[ProbePooling, ...] = get_args(ProbePooling)

# --- states of unlike length -------------------------------------------------------------------------------


def ragged(lengths: tuple[int, ...] = (3, 0, 1, 5), seed: int = 0) -> tuple[Ragged, list[torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randn(length, HIDDEN, generator=generator) for length in lengths]
    return Ragged.of(parts, HIDDEN), parts


def test_rows_are_selected_by_mask_by_indices_and_by_slice() -> None:
    states, parts = ragged()
    mask = torch.tensor([True, False, True, True])
    for rows, places in ((mask, [0, 2, 3]), ([3, 0, 3], [3, 0, 3]), (slice(1, 3), [1, 2]), ([], [])):
        chosen = states[rows]
        expected = Ragged.of([parts[place] for place in places], HIDDEN)
        assert torch.equal(chosen.values, expected.values)
        assert chosen.lengths.tolist() == expected.lengths.tolist() == [len(parts[place]) for place in places]
    both = concatenated([states, states[[2]]])
    assert isinstance(both, Ragged)
    assert torch.equal(both[[4]].values, parts[2])


def test_pooling_is_that_of_every_row_alone() -> None:
    states, parts = ragged((3, 1, 5))
    scores = torch.randn(9, generator=torch.Generator().manual_seed(1)) * 50
    weighted = [
        (score.softmax(0)[:, None] * part).sum(0)
        for score, part in zip(scores.split([3, 1, 5]), parts, strict=True)
    ]
    torch.testing.assert_close(states.mean(), torch.stack([part.mean(0) for part in parts]))
    assert torch.equal(states.last(), torch.stack([part[-1] for part in parts]))
    torch.testing.assert_close(states.attended(scores), torch.stack(weighted))


# --- probes ------------------------------------------------------------------------------------------------


def make_probe(**changes: Any) -> Probe:
    """Untrained, but with a scaler and a query that are not what they begin with."""
    torch.manual_seed(0)
    card = make_card(**changes)
    network = network_of(card)
    network.mean.normal_()
    network.scale.uniform_(0.5, 2)
    if network.query is not None:
        torch.nn.init.normal_(network.query)
    return Probe(card, network)


def unpooled_reading(seed: int, tokens: int = 5) -> Reading:
    return replace(
        make_reading(seed),
        pooled_state=torch.randn(tokens, HIDDEN, generator=torch.Generator().manual_seed(seed)),
    )


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("layer", [-1, 2])
def test_save_and_load_give_the_same_probe(tmp_path: Path, pooling: ProbePooling, layer: int) -> None:
    probe = make_probe(pooling=pooling, layer=layer, norm_state="post" if layer < 0 else "pre")
    probe.save(tmp_path)
    loaded = Probe.load(tmp_path)
    assert replace(loaded.card, weights_digest="") == probe.card
    readings = [unpooled_reading(seed, 1 + seed) for seed in range(6)]
    assert loaded.estimate_many(readings) == probe.estimate_many(readings)
    assert len(set(probe.estimate_many(readings))) == 6


@pytest.mark.parametrize("pooling", POOLINGS)
def test_states_that_no_engine_has_pooled_are_pooled_by_the_probe(pooling: ProbePooling) -> None:
    probe, readings = make_probe(pooling=pooling), [unpooled_reading(seed, 2 + seed) for seed in range(5)]
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


def test_attention_needs_every_state() -> None:
    with pytest.raises(ProbeError, match=r"every state of a segment.*StateSpec\(pooling='none'\)"):
        make_probe(pooling="attention").estimate(make_reading())
    with pytest.raises(ProbeError, match="size 6"):
        make_probe().estimate(replace(make_reading(), pooled_state=torch.zeros(3, HIDDEN + 1)))


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
    probe = make_probe(**card)
    info = replace(EngineInfo("some/model", "abc", HIDDEN, 2, 100, 512), **engine)
    with pytest.raises(ProbeError, match=rf"{said}; load the engine with states=StateSpec\(") as caught:
        probe.check(info, "f00d", "target")
    assert "train a probe" not in str(caught.value)
    right = replace(info, **vars_of(probe.card.states), norm_state=probe.card.norm_state)
    assert probe.check(right, "f00d", "target") == []
    every_state = replace(right, pooling="none")
    assert probe.check(every_state, "f00d", "target") == []
    without_state = make_probe(**card, use_state=False)
    assert without_state.check(info, "f00d", "target") == []
    with pytest.raises(ProbeError, match="train a probe for it"):
        probe.check(replace(info, hidden_size=7), "f00d", "target")


def vars_of(states: StateSpec) -> dict[str, Any]:
    return {"layer": states.layer, "pooling": states.pooling}


@pytest.mark.parametrize("changes", [{"pooling": "none"}, {"layer": 3}, {"layer": 0}])
def test_cards_of_states_that_cannot_be_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"pooling is 'none'|layer is \d; expected -1 .* layers 1 to 2"):
        make_card(**changes)


def test_a_published_probe_says_which_states_it_reads(tmp_path: Path) -> None:
    for name, changes, said in (
        (
            "inner",
            {"layer": 2, "norm_state": "pre", "pooling": "attention"},
            "| layer 2; learnt attention over",
        ),
        ("usual", {}, ""),
    ):
        make_probe(**changes).save(tmp_path / name)
        readme = (publish(tmp_path / name, tmp_path / f"published {name}") / "README.md").read_text()
        assert ("| states |" in readme) == bool(said)
        assert said in readme


def test_packaged_probes_are_as_they_were() -> None:
    for packaged in packaged_probes():
        probe = Probe.load(packaged.path)
        assert probe.card.states == StateSpec()
        assert "query" not in probe.network.state_dict()


# --- training ----------------------------------------------------------------------------------------------


def with_a_marked_position(num_problems: int, rows_each: int = 12) -> Examples:
    """The label is at one position of each segment, which a large first value marks; the rest is noise."""
    generator = torch.Generator().manual_seed(0)
    rows = num_problems * rows_each
    lengths = torch.randint(4, 13, (rows,), generator=generator).tolist()
    labels = (torch.rand(rows, generator=generator) > 0.5).float()
    parts = []
    for length, positive in zip(lengths, labels.tolist(), strict=True):
        states = torch.randn(length, HIDDEN, generator=generator)
        place = int(torch.randint(0, length, (), generator=generator))
        states[place, :2] = torch.tensor([4.0, 1.5 if positive else -1.5])
        parts.append(states)
    return Examples(
        states=Ragged.of(parts, HIDDEN),
        signals=(TokenSignals((-0.5, -1.0)),) * rows,
        draft_logprobs=((),) * rows,
        labels=labels,
        weights=torch.ones(rows),
        drafted=torch.arange(rows) % 2 == 0,
        from_loop=torch.arange(rows) % 3 == 0,
        halves=torch.stack([labels, labels], dim=1),
        problem_ids=tuple(f"problem {i // rows_each}" for i in range(rows)),
    )


def test_attention_finds_the_position_that_tells() -> None:
    examples = with_a_marked_position(120)
    training, validation, test = (examples.of_split(split) for split in ("train", "validation", "test"))
    config = TrainConfig(widths=(16,), features=("mean",), learning_rate=0.01, max_epochs=30, batch_size=64)
    figures = {}
    for pooling in POOLINGS:
        one = replace(config, pooling=pooling)
        logits = logits_of(fit(training, validation, "target", one).network, test, one)
        figures[pooling] = point_estimate(area_under_roc, logits, test.labels >= 0.5)
    assert figures["attention"] > 0.93
    assert figures["attention"] > max(figures["mean"], figures["last"]) + 0.05


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


def test_a_pooling_the_collection_cannot_give_is_refused() -> None:
    assert pooling_of("none", None, "target") == pooling_of("mean", None, "target") == "mean"
    assert pooling_of("last", None, "target") == pooling_of("none", "last", "target") == "last"
    with pytest.raises(ConfigError, match=r"collected with the pooling 'mean'.*--pooling none\)"):
        pooling_of("mean", "attention", "draft")
    with pytest.raises(ConfigError, match="the pooling last or none"):
        pooling_of("mean", "last", "draft")
    with pytest.raises(ConfigError, match="pooling is 'none'; expected one of mean, last, attention"):
        TrainConfig(pooling="none")  # type: ignore[arg-type]


def test_a_run_whose_training_its_collection_cannot_serve_does_nothing(tmp_path: Path) -> None:
    settings = parse_settings({"train": {"draft": {"pooling": "attention"}}})
    with pytest.raises(ConfigError, match="--pooling none"):
        run(settings, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    pair = parse_settings({"pair": {"pooling": "none", "target_layer": 3}}).pair
    assert pair.states == {"target": StateSpec(3, "none"), "draft": StateSpec(-1, "none")}


# --- collections -------------------------------------------------------------------------------------------

PROBLEMS = [ProblemText(f"problem {i}", "ab"[: 1 + i % 2]) for i in range(24)]


def scripted_pair(pooling: Any) -> Pair:
    states = StateSpec(pooling=pooling)
    engines = [ScriptedEngine(next_probabilities(share), 6, states=states) for share in (0.7, 0.4)]
    return Pair(*(Model(engine, make_vocabulary()) for engine in engines))


@pytest.fixture(scope="module")
def collections(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Collection]:
    """The same problems, collected with every pooling and labelled."""
    folder = tmp_path_factory.mktemp("data")
    found = {}
    for pooling in ("mean", "last", "none"):
        found[pooling] = asyncio.run(collect(scripted_pair(pooling), PROBLEMS, CONFIG, folder / pooling))
        label(found[pooling], ExactJudge())
    return found


def test_every_state_is_stored_with_its_segment(collections: dict[str, Collection]) -> None:
    target = next_probabilities(0.7)
    pair, checked = scripted_pair("none"), 0
    for mean, last, every in zip(*(collections[name] for name in ("mean", "last", "none")), strict=True):
        assert mean.segments == last.segments == every.segments
        for role in ("target", "draft"):
            states = getattr(every, f"{role}_states")
            of_role = [getattr(segment, f"{role}_logprobs") for segment in every.segments]
            assert states.lengths.tolist() == [len(logprobs) for logprobs in of_role]
            drafted = [
                i for i, segment in enumerate(every.segments) if role == "target" or segment.author == "draft"
            ]
            torch.testing.assert_close(states[drafted].mean(), getattr(mean, f"{role}_states")[drafted])
            torch.testing.assert_close(states[drafted].last(), getattr(last, f"{role}_states")[drafted])
        first, context = every.segments[0], every.contexts[0]
        ids = [
            *pair.target.vocabulary.render_prompt(every.prompt),
            *pair.target.vocabulary.encode(context.text),
        ]
        told = [target([*ids, *first.token_ids[:end]]) for end in range(len(first.token_ids))]
        torch.testing.assert_close(every.target_states[[0]].values, torch.tensor(told, dtype=torch.float32))
        checked += len(every.segments)
    assert checked > 100


def test_more_or_fewer_states_than_tokens_are_told(
    tmp_path: Path, collections: dict[str, Collection]
) -> None:
    shard = next(iter(collections["none"]))
    copy = Collection(tmp_path)
    copy.open(collections["none"].manifest)
    copy.write(shard)
    (found,) = copy
    assert torch.equal(found.target_states.values, shard.target_states.values)  # type: ignore[union-attr]
    assert isinstance(shard.draft_states, Ragged)
    short = Ragged(shard.draft_states.values[1:], shard.draft_states.lengths)
    copy.write(replace(shard, draft_states=short))
    with pytest.raises(ProbeError, match=r"file is broken \(\d+ states of the draft for \d+ tokens\)"):
        list(copy)


def test_older_collections_hold_means_of_the_last_layer(tmp_path: Path) -> None:
    """Without the manifest's newer keys they are read, and gone on with, as before."""
    collection = asyncio.run(collect(make_pair(), PROBLEMS[:2], CONFIG, tmp_path))
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text())
    for role in ("target", "draft"):
        assert (manifest[role].pop("layer"), manifest[role].pop("pooling")) == (-1, "mean")
    for shard in (tmp_path / "problems").iterdir():
        shard.unlink()  # they are stamped with the newer manifest
    path.write_text(json.dumps(manifest))
    older = Collection(tmp_path)
    assert older.pooling("target") == "mean"
    assert older.manifest == collection.manifest
    asyncio.run(collect(make_pair(), PROBLEMS[:2], CONFIG, tmp_path))
    assert len(list(Collection(tmp_path))) == 2
    assert "pooling" not in json.loads(path.read_text())["target"]
    label(Collection(tmp_path), ExactJudge())
    stamp = pyarrow.parquet.read_schema(tmp_path / "meanings-exact.parquet").metadata[b"collection"]
    assert (
        stamp.decode() == blake2b(json.dumps(manifest).encode(), digest_size=10).hexdigest()
    )  # as it was before
    with pytest.raises(ProbeError, match="made with other draft, target"):
        asyncio.run(collect(scripted_pair("none"), PROBLEMS, CONFIG, tmp_path))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_from_every_state_to_a_probe(collections: dict[str, Collection], pooling: ProbePooling) -> None:
    config = TrainConfig(widths=(8,), features=("sum",), max_epochs=4, pooling=pooling)
    every, pair = collections["none"], scripted_pair("none")
    probes = {role: train(every, role, "exact", config) for role in ("target", "draft")}  # type: ignore[arg-type]
    for role, probe in probes.items():
        model = getattr(pair, role)
        assert probe.card.pooling == probe.card.training["pooling"] == pooling
        assert probe.check(model.engine.info, model.vocabulary.fingerprint, role) == []  # type: ignore[arg-type]
    judged = judge_rows(every, probes["target"], draft_probe=probes["draft"])
    assert judged.signals["p_draft"].shape == judged.after.shape
    if pooling == "attention":
        with pytest.raises(ConfigError, match="--pooling none"):
            train(collections["mean"], "target", "exact", config)
        with pytest.raises(ProbeError, match="pooling attention instead of last"):
            judge_rows(collections["last"], probes["target"])
        return
    pooled = collections[pooling]
    again = train(pooled, "target", "exact", replace(config, pooling=None))
    assert again.card.pooling == pooling
    rows = gather(pooled, read_meanings(pooled, "exact"), "target", "unbiased")
    torch.testing.assert_close(
        again.probabilities(rows.states, rows.signals),
        probes["target"].probabilities(rows.states, rows.signals),
        atol=1e-3,
        rtol=0,
    )
    assert len(judge_rows(pooled, probes["target"]).after) == len(judged.after)


def test_ablations_pool_every_state_in_other_ways(collections: dict[str, Collection]) -> None:
    config, steps = TrainConfig(widths=(4,), max_epochs=1), []
    for name, others in (("none", {"last", "attention"}), ("mean", set())):
        steps.clear()
        probe = train(collections[name], "target", "exact", config)
        again = Retraining(collections[name], probe.card, "", steps.append)
        names = {row["name"] for row in again.ablations()}
        assert {row for row in names if "pooling" in row} == {
            f"state, bce, pooling {other}" for other in others
        }
        assert len(names) == len(steps) == num_variants(collections[name], "target")


# --- the bundled pair --------------------------------------------------------------------------------------


def test_a_pair_is_loaded_with_the_states_its_probes_read(tmp_path: Path) -> None:
    card = Probe.load(demo.target_probe_path()).card
    inner = replace(card, layer=8, norm_state="pre", pooling="attention", calibration="none")
    Probe(inner, network_of(inner)).save(tmp_path / "inner")
    pair = load_pair(target_probe=str(tmp_path / "inner"))
    info = pair.target.engine.info
    assert (info.layer, info.pooling, info.norm_state) == (8, "none", "pre")
    assert vars_of(StateSpec()) == {"layer": pair.draft.engine.info.layer, "pooling": "mean"}
    (score,) = asyncio.run(pair.target.engine.score([5, 6], [[7, 8, 9]]))
    assert score.pooled_state.shape == (3, card.hidden_size)
    assert pair.target_probe is not None
    assert 0 < pair.target_probe.estimate(score) < 1
    asyncio.run(pair.aclose())
    # The packaged probe would fit this model, had it been loaded for that one.
    assert fitting(info, card.fingerprint, "target", card.model_id) == ["bundled"]
    with pytest.raises(
        ProbeError, match=r"layer 8 instead of 2.*load the engine with states=StateSpec\(layer=8"
    ):
        load_pair(target_probe=str(tmp_path / "inner"), target_states=StateSpec(2, "none"))


@pytest.mark.slow
def test_from_problems_to_a_pair_with_attention(tmp_path: Path) -> None:
    """The commands, an inner layer of the target and all; the probe says in use what it says of its rows."""
    write_problems(tmp_path / "problems.jsonl")
    data, out = tmp_path / "data", tmp_path / "probe"
    collecting = ["collect", "--out", str(data), "--problems", str(tmp_path / "problems.jsonl")]
    collecting += "--samples 4 --max-contexts 2 --max-trace-tokens 64 --one-trace".split()
    training = ["train", "--role", "target", "--data", str(data), "--out", str(out), "--calibration", "none"]
    training += "--widths 8 --features all --max-epochs 5".split()
    for command in (
        [*collecting, "--pooling", "none", "--target-layer", "8"],
        ["label", "--data", str(data)],
        [*training, "--pooling", "attention"],
    ):
        result = CliRunner().invoke(probe_app, command)
        assert result.exit_code == 0, (result.output, result.exception)
    manifest = Collection(data).manifest
    assert [(model.layer, model.pooling) for model in (manifest.target, manifest.draft)] == [
        (8, "none"),
        (-1, "none"),
    ]
    pair = load_pair(target_probe=str(out))
    assert isinstance(pair.target_probe, Probe)
    shard = next(shard for shard in Collection(data) if len(shard.contexts) == 2)
    vocabulary = pair.target.vocabulary
    for context in shard.contexts:
        places = [i for i, segment in enumerate(shard.segments) if segment.context_id == context.context_id]
        ids = [*vocabulary.render_prompt(shard.prompt), *vocabulary.encode(context.text)]
        scores = asyncio.run(pair.target.engine.score(ids, [shard.segments[i].token_ids for i in places]))
        signals = [
            TokenSignals(row.target_logprobs, row.target_ranks, row.target_entropies)
            for row in (shard.segments[i] for i in places)
        ]
        stored = pair.target_probe.probabilities(shard.target_states[places], signals)
        assert pair.target_probe.estimate_many(scores) == pytest.approx(stored.tolist(), abs=1e-4)
    asyncio.run(pair.aclose())
