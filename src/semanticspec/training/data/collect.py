"""First stage: what target and draft say, many times over, in contexts as they occur in use.

For every problem the target writes one reasoning (unless one is given), the speculative loop another; both are
cut at segment ends. In each of these contexts both models write the next segment `num_samples` times, and the
target reads all that was written, its own segments too: what it says of both kinds comes from the same kind of
pass. Source: the paper's data collection. Deviations: it has no contexts from the loop, and its target's probe
never sees a segment that the draft wrote, which is all it judges in use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semanticspec.decoding.pair import Model, Pair
from semanticspec.engines.base import EngineInfo, derived_seed
from semanticspec.errors import ConfigError, PromptError, SemanticSpecError
from semanticspec.probes.states import Ragged, States
from semanticspec.records import Author, Generation, Score, Stop
from semanticspec.training.data.contexts import ContextFinder, check_trace, loop_config
from semanticspec.training.data.problems import ProblemText as ProblemText
from semanticspec.training.data.settings import CollectConfig
from semanticspec.training.data.storage import Collection, ContextRecord, SegmentRecord, Shard

_LOWEST_STORED = -1e4  # nats; tokens held impossible stay numbers


async def collect(
    pair: Pair,
    problems: Iterable[ProblemText],
    config: CollectConfig,
    folder: Path | str,
    *,
    concurrency: int = 4,
    on_progress: Callable[[Shard | None], None] = lambda _: None,
) -> Collection:
    """Collects on every problem that is not finished yet.

    The rows of a problem depend on the models, the configuration and its id only, not on what ran before or
    beside it (as far as the engine's arithmetic does not depend on its batches).

    Args:
        concurrency: problems at work at once; engines batch their calls.
        on_progress: told every problem's shard as it is finished, None for one that was already there.

    Raises:
        ProbeError: the folder holds a collection made in another way, or a problem could not be stored.
        ConfigError: two problems have the same id, or a given trace cannot be cut.
    """
    listed = list(problems)
    if len({problem.problem_id for problem in listed}) < len(listed):
        raise ConfigError(
            "two problems have the same id; ids decide the split, so give every problem its own"
        )
    for problem in listed:
        check_trace(pair.target, problem)
    for rule in config.loop_rules:
        pair.check(loop_config(config, rule))
    collection = Collection(folder)
    collection.open(_manifest(pair, config))
    todo = iter(listed)

    async def work() -> None:
        for problem in todo:
            if collection.has(problem.problem_id):
                on_progress(None)
                continue
            shard = await _Collector(pair, config, problem).run()
            collection.write(shard)
            on_progress(shard)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(max(1, concurrency)):
                group.create_task(work())
    except ExceptionGroup as group:
        if isinstance(group.exceptions[0], SemanticSpecError):
            raise group.exceptions[0] from group.exceptions[0].__cause__
        raise
    return collection


class _Collector:
    """The work on one problem."""

    def __init__(self, pair: Pair, config: CollectConfig, problem: ProblemText) -> None:
        self.pair, self.config, self.problem = pair, config, problem
        self.seed = derived_seed(config.seed, "collect", problem.problem_id)

    async def run(self) -> Shard:
        """Traces, contexts, samples, readings. A prompt that no model can answer gives an empty shard."""
        try:
            contexts = await ContextFinder(self.pair, self.config, self.problem, self.seed).find()
        except PromptError as error:
            return self._shard([], [], str(error))
        prompts = [
            model.vocabulary.render_prompt(self.problem.prompt)
            for model in (self.pair.target, self.pair.draft)
        ]
        records: list[ContextRecord] = []
        rows: list[tuple[SegmentRecord, Tensor, Tensor]] = []
        for index, context in enumerate(contexts):
            written = [i for segment in context.segments for i in segment]
            draft_ids = [
                *prompts[1],
                *(i for s in context.segments for i in self.pair.to_draft.context_ids(s)),
            ]
            found = await self._rows(str(index), [*prompts[0], *written], draft_ids)
            if found:  # else there is no room left for another segment
                text = self.pair.target.vocabulary.decode(written)
                records.append(ContextRecord(str(index), context.origin, text))
                rows += found
        return self._shard(records, rows, "" if rows else "the prompt leaves no room for a segment")

    async def _rows(
        self, context_id: str, target_ids: list[int], draft_ids: list[int]
    ) -> list[tuple[SegmentRecord, Tensor, Tensor]]:
        """Samples of both models in one context, with their states under target and draft."""
        pair = self.pair
        draft_stop = pair.draft.segmenter.stop
        draft_stop = replace(draft_stop, ids=draft_stop.ids | pair.to_target.unmapped)
        by_target, by_draft = await asyncio.gather(
            self._sample(pair.target, target_ids, pair.target.segmenter.stop, f"target {context_id}"),
            self._sample(pair.draft, draft_ids, draft_stop, f"draft {context_id}"),
        )
        draft_info = pair.draft.engine.info
        no_state = torch.zeros((0,) * (draft_info.pooling == "none") + (draft_info.hidden_size,))
        written = [
            (_record(context_id, "target", pair.target, own, count), own.token_ids, no_state)
            for own, count in _distinct(by_target)
        ] + [
            (_record(context_id, "draft", pair.draft, own, count), tuple(ids), _stored(own.pooled_state))
            for own, count in _distinct(by_draft)
            if (ids := pair.to_target.ids(own.token_ids))
            and len(target_ids) + len(ids) <= _room_of(pair.target)
        ]
        continuations = list(dict.fromkeys(ids for _, ids, _ in written))
        if not continuations:
            return []
        scores = await pair.target.engine.score(target_ids, continuations)
        by_ids = dict(zip(continuations, scores, strict=True))
        return [
            (_as_read(record, by_ids[ids]), _stored(by_ids[ids].pooled_state), draft_state)
            for record, ids, draft_state in written
        ]

    async def _sample(self, model: Model, ids: list[int], stop: Stop, purpose: str) -> list[Generation]:
        """The next segment, `num_samples` times; cut behind `</think>` where that is plain text."""
        max_tokens = min(self.config.max_segment_tokens, _room_of(model) - len(ids))
        if max_tokens < 1:
            return []
        generations = await model.engine.generate(
            ids,
            n=self.config.num_samples,
            max_tokens=max_tokens,
            stop=stop,
            sampling=self.config.sampling,
            seed=derived_seed(self.seed, purpose),
        )
        for index, generation in enumerate(generations):
            end = model.segmenter.think_end(generation.token_ids)
            if end is not None and end < len(generation.token_ids):
                kept = generation.token_ids[:end]
                (score,) = await model.engine.score(ids, [kept])
                generations[index] = Generation(score.logprobs, score.pooled_state, None, kept, "stop")
        return generations

    def _shard(
        self,
        contexts: list[ContextRecord],
        rows: list[tuple[SegmentRecord, Tensor, Tensor]],
        skipped: str = "",
    ) -> Shard:
        return Shard(
            problem_id=self.problem.problem_id,
            prompt=self.problem.prompt,
            contexts=tuple(contexts),
            segments=tuple(record for record, _, _ in rows),
            target_states=_together([state for _, state, _ in rows], self.pair.target.engine.info),
            draft_states=_together([state for _, _, state in rows], self.pair.draft.engine.info),
            skipped=skipped,
        )


def _distinct(generations: Sequence[Generation]) -> list[tuple[Generation, int]]:
    """Generations that differ in their tokens, each with how often it was drawn."""
    found: dict[tuple[int, ...], tuple[Generation, int]] = {}
    for generation in generations:
        first, count = found.get(generation.token_ids, (generation, 0))
        found[generation.token_ids] = (first, count + 1)
    return list(found.values())


def _record(context_id: str, author: Author, writer: Model, own: Generation, count: int) -> SegmentRecord:
    """A segment as its writer gave it; what the target says of it comes with `_as_read`."""
    return SegmentRecord(
        context_id=context_id,
        author=author,
        text=writer.vocabulary.decode(own.token_ids),
        token_ids=own.token_ids,
        count=count,
        stop_reason=own.stop_reason,
        target_logprobs=(),
        draft_logprobs=_bounded(own.logprobs) if author == "draft" else (),
    )


def _as_read(record: SegmentRecord, score: Score) -> SegmentRecord:
    return replace(
        record,
        target_logprobs=_bounded(score.logprobs),
        target_ranks=score.ranks,
        target_entropies=score.entropies,
    )


def _bounded(logprobs: Sequence[float]) -> tuple[float, ...]:
    return tuple(max(value, _LOWEST_STORED) for value in logprobs)


def _stored(state: Tensor) -> Tensor:
    return state.detach().to("cpu", torch.float32)


def _together(states: list[Tensor], info: EngineInfo) -> States:
    if info.pooling == "none":
        return Ragged.of(states, info.hidden_size)
    return torch.stack(states) if states else torch.zeros(0, info.hidden_size)


def _room_of(model: Model) -> int:
    return model.engine.info.max_context_tokens


def _manifest(pair: Pair, config: CollectConfig) -> dict[str, Any]:
    """What decides the rows, in JSON's types."""
    probes = {
        role: getattr(getattr(probe, "card", None), "weights_digest", "")
        for role, probe in (("target", pair.target_probe), ("draft", pair.draft_probe))
        if any(rule.needs_probes for rule in config.loop_rules)
    }
    return {
        "target": _describe(pair.target.engine.info, pair.target.vocabulary.fingerprint),
        "draft": _describe(pair.draft.engine.info, pair.draft.vocabulary.fingerprint),
        "config": asdict(config),
        "probes": probes,
        "versions": {name: _version(name) for name in ("semanticspec", "torch", "transformers")},
    }


def _describe(info: EngineInfo, fingerprint: str) -> dict[str, Any]:
    return {
        "model_id": info.model_id,
        "revision": info.revision,
        "hidden_size": info.hidden_size,
        "num_layers": info.num_layers,
        "norm_state": info.norm_state,
        "fingerprint": fingerprint,
        "layer": info.layer,
        "pooling": info.pooling,
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
