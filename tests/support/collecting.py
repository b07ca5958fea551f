"""Builders for tests of probes and collections: cards, probes, readings, a scripted pair to collect on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from semanticspec.decoding.pair import Model, Pair
from semanticspec.engines.base import EngineInfo, StateSpec
from semanticspec.engines.scripted import ScriptedEngine
from semanticspec.probes import Probe, ProbeCard
from semanticspec.probes.features import TokenSignals
from semanticspec.probes.network import ProbeNetwork
from semanticspec.probes.probe import network_of
from semanticspec.probes.states import Ragged
from semanticspec.problems.sources import ProblemText
from semanticspec.records import Reading, Sampling
from semanticspec.text.vocabulary import Vocabulary
from semanticspec.training.data.collect import collect
from semanticspec.training.data.examples import Examples
from semanticspec.training.data.manifest import CollectedModel, Manifest
from semanticspec.training.data.settings import CollectConfig
from semanticspec.training.data.storage import Collection, ContextRecord, SegmentRecord, Shard

HIDDEN = 6


def make_card(**changes: Any) -> ProbeCard:
    card = ProbeCard(
        role="target",
        model_id="some/model",
        revision="abc",
        hidden_size=HIDDEN,
        num_layers=2,
        norm_state="post",
        fingerprint="f00d",
        sampling=Sampling(),
        num_samples=20,
        judge="exact",
        counting="unbiased",
        widths=(8, 4),
        features=("mean", "minimum"),
        metrics={"auroc": 0.9},
    )
    return replace(card, **changes)


def make_probe(**changes: Any) -> Probe:
    torch.manual_seed(0)
    card = make_card(**changes)
    return Probe(card, ProbeNetwork(HIDDEN * card.use_state + len(card.features), card.widths))


def make_untrained_probe(**changes: Any) -> Probe:
    """Untrained, but with a scaler and a query that are not what they begin with."""
    torch.manual_seed(0)
    card = make_card(**changes)
    network = network_of(card)
    network.mean.normal_()
    network.scale.uniform_(0.5, 2)
    if network.query is not None:
        torch.nn.init.normal_(network.query)
    return Probe(card, network)


def make_reading(seed: int = 0) -> Reading:
    generator = torch.Generator().manual_seed(seed)
    logprobs = (-torch.rand(5, generator=generator)).tolist()
    return Reading(tuple(logprobs), torch.randn(HIDDEN, generator=generator))


def unpooled_reading(seed: int, tokens: int = 5) -> Reading:
    return replace(
        make_reading(seed),
        pooled_state=torch.randn(tokens, HIDDEN, generator=torch.Generator().manual_seed(seed)),
    )


def info(**changes: Any) -> EngineInfo:
    made = EngineInfo("some/model", "abc", HIDDEN, 2, 100, 512)
    return replace(made, **changes)


def make_manifest(seed: int = 0, fingerprint: str = "f00d") -> Manifest:
    model = CollectedModel.of(info(), fingerprint)
    return Manifest(target=model, draft=model, config={"seed": seed})


def segment(author: str, text: str, count: int = 1, context_id: str = "0") -> SegmentRecord:
    logprobs = (-0.5, -1.0)
    return SegmentRecord(
        context_id,
        author,  # type: ignore[arg-type]
        text,
        (1, 2),
        count,
        "stop",
        logprobs,
        logprobs if author == "draft" else (),
    )


def synthetic(num_problems: int, rows_each: int = 8) -> Examples:
    """Examples whose label depends on the first two values of the state."""
    generator = torch.Generator().manual_seed(0)
    rows = num_problems * rows_each
    states = torch.randn(rows, HIDDEN, generator=generator) * 4 + 2
    labels = torch.sigmoid(states[:, 0] - states[:, 1])
    return Examples(
        states=states,
        signals=(TokenSignals((-0.5, -1.0)),) * rows,
        draft_logprobs=((),) * rows,
        labels=labels,
        weights=torch.ones(rows),
        drafted=torch.arange(rows) % 2 == 0,
        from_loop=torch.arange(rows) % 3 == 0,
        halves=torch.stack([labels, labels], dim=1),
        problem_ids=tuple(f"problem {i // rows_each}" for i in range(rows)),
    )


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


TOKENS = {"a": 0, "b": 1, "\n\n": 2, "?": 3}


END, THINK_END = 4, 5


def make_vocabulary() -> Vocabulary:
    tokenizer = Tokenizer(models.WordLevel(TOKENS, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("\n\n|."), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_tokens([AddedToken("<|im_end|>", special=True), AddedToken("</think>", special=False)])
    return Vocabulary(PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>"))


def next_probabilities(share_of_a: float) -> Any:
    """A model that writes one letter per segment; after three segments the thinking may end, and then the text."""

    def of(ids: Sequence[int]) -> list[float]:
        if THINK_END in ids:
            return [0, 0, 0, 0, 1, 0]
        if ids[-1] in (0, 1):
            return [0, 0, 1, 0, 0, 0]
        end = 0.5 if list(ids).count(2) >= 3 else 0.0
        return [(1 - end) * share_of_a, (1 - end) * (1 - share_of_a), 0, 0, 0, end]

    return of


def make_pair() -> Pair:
    engines = [ScriptedEngine(next_probabilities(share), 6) for share in (0.7, 0.4)]
    return Pair(*(Model(engine, make_vocabulary()) for engine in engines))


def scripted_pair(pooling: Any) -> Pair:
    states = StateSpec(pooling=pooling)
    engines = [ScriptedEngine(next_probabilities(share), 6, states=states) for share in (0.7, 0.4)]
    return Pair(*(Model(engine, make_vocabulary()) for engine in engines))


CONFIG = CollectConfig(num_samples=6, max_segment_tokens=5, max_trace_tokens=40)


PROBLEMS = [ProblemText(f"problem {i}", "ab"[: 1 + i % 2]) for i in range(8)]


def many_problems() -> list[ProblemText]:
    """Enough problems for every split."""
    return [ProblemText(f"problem {i}", "ab"[: 1 + i % 2]) for i in range(24)]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "problems").iterdir()}


def run_collect(
    folder: Path,
    problems: Sequence[ProblemText] = PROBLEMS,
    config: CollectConfig = CONFIG,
    **options: Any,
) -> Collection:
    return asyncio.run(collect(make_pair(), problems, config, folder, **options))


def shard_of(problem_id: str = "one", **changes: Any) -> Shard:
    segments = tuple(
        SegmentRecord(
            "0", author, text, ids, 2, "stop", (-0.5, -1.25), own, (1, 2), (0.5, 0.25), (2.0, 0.125)
        )  # type: ignore[arg-type]
        for author, text, ids, own in (
            ("target", "é\n\n", (5, 2), ()),
            ("draft", "b", (6, 2), (-2.0, -0.125)),
        )
    )
    shard = Shard(
        problem_id=problem_id,
        prompt='"?" ü\n',
        contexts=(ContextRecord("0", "given", "so far\n\n"),),
        segments=segments,
        target_states=torch.randn(2, 6),
        draft_states=torch.randn(2, 4),
    )
    return replace(shard, **changes)


def opened(folder: Path, **manifest: Any) -> Collection:
    collection = Collection(folder)
    collection.open(make_manifest(**manifest))
    return collection


def assert_same(found: Iterable[Shard], expected: Iterable[Shard]) -> None:
    """Compares rows: ids, counts and ranks exactly, numbers up to rounding."""
    assert [shard.problem_id for shard in found] == [shard.problem_id for shard in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.contexts == other.contexts
        plain = [
            [
                replace(row, target_logprobs=(), draft_logprobs=(), target_entropies=(), target_margins=())
                for row in shard.segments
            ]
            for shard in (one, other)
        ]
        assert plain[0] == plain[1]
        for row, like in zip(one.segments, other.segments, strict=True):
            for name in ("target_logprobs", "draft_logprobs", "target_entropies", "target_margins"):
                assert getattr(row, name) == pytest.approx(getattr(like, name), abs=1e-3)
        torch.testing.assert_close(one.target_states, other.target_states, atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(one.draft_states, other.draft_states, atol=1e-3, rtol=1e-3)
